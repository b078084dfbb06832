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
