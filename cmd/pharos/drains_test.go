package main

import (
	"bytes"
	"context"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/pharos-lb/pharos/internal/admin"
	"github.com/pharos-lb/pharos/internal/health"
)

// A scroll is written by one goroutine and read by another.
type scroll struct {
	mu   sync.Mutex // guards text
	text bytes.Buffer
}

func (p *scroll) Write(b []byte) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.text.Write(b)
}

func (p *scroll) String() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.text.String()
}

// What comes back is waited for where the orders were, and nowhere else.
func TestReturnsElsewhereAreNotWaitedFor(t *testing.T) {
	list := &admin.DrainList{Drains: []admin.DrainStatus{
		{Node: "iad1", Site: "iad", What: "prefix 192.0.2.0/24", Stage: admin.StageReturning, Why: "not announced yet"},
	}}
	for scope, concerned := range map[string]bool{
		"site/fra": false, "pool/web/fra": false, "backend/web/fra/10.0.1.10:8080": false, "prefix/198.18.0.0/24": false,
		"site/iad": true, "pool/web/iad": true, "prefix/192.0.2.0/24": true, "service/web": true,
	} {
		parsed, err := health.ParseScope(scope)
		if err != nil {
			t.Fatal(err)
		}
		out := &scroll{}
		f := follower{out: out, order: health.OrderNone, scopes: []string{scope}, within: []health.Scope{parsed}, said: map[string]string{}}
		done := false
		for range 2 {
			if done, err = f.look(t.Context(), list); err != nil {
				t.Fatal(err)
			}
		}
		if done == concerned || strings.Contains(out.String(), "iad1") != concerned {
			t.Errorf("%s: done %v, said %q", scope, done, out)
		}
	}
}

// A node that is silent for a moment is waited for; of one that stays so nothing is known, and that is said.
func TestSilentNodesAreNotDone(t *testing.T) {
	out := &scroll{}
	f := follower{out: out, order: health.OrderNone, scopes: []string{"site/fra"}, said: map[string]string{}}
	silent := &admin.DrainList{Silent: []string{"iad1"}}
	for i := range silentLooks - 1 {
		if done, err := f.look(t.Context(), silent); done || err != nil {
			t.Fatalf("look %d: %v, %v", i, done, err)
		}
	}
	patient := f
	if done, err := patient.look(t.Context(), &admin.DrainList{}); !done || err != nil {
		t.Errorf("it answers again: %v, %v", done, err)
	}
	if done, err := f.look(t.Context(), silent); !done || err != errDegraded || !strings.Contains(out.String(), "not known of iad1") {
		t.Errorf("it stays silent: %v, %v:\n%s", done, err, out)
	}
}

// Whoever stops watching leaves the order standing, and is told so.
func TestWatchingEndsAndTheOrderStands(t *testing.T) {
	fleet := newFakeFleet()
	socket := filepath.Join(t.TempDir(), "s")
	server, err := admin.New(fleet.options(socket))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	served := make(chan error, 1)
	go func() { served <- server.Run(ctx) }()
	defer func() {
		cancel()
		if err := <-served; err != nil {
			t.Error(err)
		}
	}()
	client := admin.NewClient(socket)
	result, err := client.Override(ctx, admin.OverrideRequest{Scopes: []string{"site/sin"}, Order: health.OrderDrain, Force: true})
	if err != nil {
		t.Fatal(err)
	}
	out := &scroll{}
	watching, interrupt := context.WithCancel(ctx)
	ended := make(chan error, 1)
	go func() { ended <- follow(watching, client, out, result) }()
	for deadline := time.Now().Add(10 * time.Second); !strings.Contains(out.String(), "finishing"); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("nothing to see:\n%s", out)
		}
	}
	interrupt()
	if err := <-ended; err != errDegraded {
		t.Errorf("watching ended with %v", err)
	}
	for _, want := range []string{
		"sin1, service web: connections are finishing, 1 connection open", "! does not answer",
		"the order stands and goes on, `pharos undrain site/sin` takes it back",
	} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("missing %q in:\n%s", want, out)
		}
	}
	if list, err := client.Overrides(ctx, false); err != nil || len(list.Overrides) != 1 {
		t.Errorf("what stands: %v, %v", list, err)
	}
}
