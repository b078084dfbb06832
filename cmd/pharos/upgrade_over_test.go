package main

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/pharos-lb/pharos/internal/admin"
)

// metric is a line of /metrics that begins with name, without the name; "" if there is none.
func (r *upgradeRig) metric(name string) string {
	r.t.Helper()
	client := &http.Client{Timeout: 5 * time.Second, Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "unix", r.socket)
		},
	}}
	resp, err := client.Get("http://pharos/metrics")
	if err != nil {
		r.t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		r.t.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		if value, ok := strings.CutPrefix(line, name+" "); ok {
			return strings.TrimSpace(value)
		}
	}
	return ""
}

// TestUpgradeIsOver: when an upgrade has returned the old process answers no request of the admin API any more, so that the next one can be made
// at once; and what old processes count as their connections end, the newest one's metrics say.
func TestUpgradeIsOver(t *testing.T) {
	r := newUpgradeRig(t)
	r.start()
	talk := func(c net.Conn, bytes int) {
		t.Helper()
		text := strings.Repeat("x", bytes)
		if _, err := io.WriteString(c, text); err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadFull(c, make([]byte, bytes)); err != nil {
			t.Fatal(err)
		}
	}
	var flows []net.Conn
	for range 3 {
		c, err := net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", r.tcp))
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		c.SetDeadline(time.Now().Add(time.Minute))
		talk(c, 1000)
		flows = append(flows, c)
		if _, err := r.upgrade(admin.UpgradeRequest{}); err != nil {
			t.Fatalf("upgrade %d: %v", len(flows), err)
		}
		for range 20 {
			if err := r.ready(); err != nil {
				t.Fatalf("after upgrade %d: %v", len(flows), err)
			}
		}
	}
	const up = "pharos_l4_up_bytes_total"
	before := r.metric(up)
	for _, c := range flows {
		talk(c, 100)
		c.Close()
	}
	want := func() bool { return r.metric(up) == "3300" }
	r.within(30*time.Second, "three connections of 1100 bytes in the metrics, which said "+before+" before", want)
}
