package l7

import (
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/pharos-lb/pharos/forward/l7/route"
)

// TestStalledLog: nobody waits for what reads a log: no request, and a stop not for long.
func TestStalledLog(t *testing.T) {
	name := filepath.Join(t.TempDir(), "pipe")
	if err := syscall.Mkfifo(name, 0o600); err != nil {
		t.Fatal(err)
	}
	reader, err := os.OpenFile(name, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	f := start(t, Options{Listeners: []Listener{{
		Routes: []Route{{Respond: &route.Response{Status: 204}}}, AccessLog: &AccessLog{File: name},
	}}})
	c := dial(t, f.addr)
	target := strings.Repeat("x", 4000) // a pipe holds 64 KiB
	for range 2000 {
		c.send("GET /" + target + " HTTP/1.1\r\nHost: a\r\n\r\n")
		if got := c.read("GET"); got.StatusCode != 204 {
			t.Fatalf("got %d", got.StatusCode)
		}
	}
	until(t, "lines are dropped and counted", func() bool { return f.Stats().LogDropped > 0 })
	c.Close()
	began := time.Now()
	f.stop()
	if took := time.Since(began); took > 4*logFarewell {
		t.Errorf("it stopped after %s", took)
	}
	reader.Close() // which frees the writer
	f.logs.writers.Wait()
}
