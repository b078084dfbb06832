package demo

import (
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"sync"
	"time"
)

// A backend is one web server of a site. Broken, it is gone: nothing listens
// and its connections are cut, as when a server crashes.
type backend struct {
	// Immutable.
	name, site string
	addr       netip.AddrPort

	mu     sync.Mutex   // guards server
	server *http.Server // nil = broken
	served sync.WaitGroup
}

// start listens again; a backend that is up is left alone.
func (b *backend) start() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.server != nil {
		return nil
	}
	l, err := net.Listen("tcp4", b.addr.String())
	if err != nil {
		return fmt.Errorf("backend %s: %w", b.name, err)
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "ok") })
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("X-Site", b.site)
		fmt.Fprintf(w, "site %s, backend %s, for %s\n", b.site, b.name, r.Header.Get("X-Forwarded-For"))
	})
	srv := &http.Server{Handler: mux, ReadHeaderTimeout: 5 * time.Second}
	b.server = srv
	b.served.Add(1)
	go func() {
		defer b.served.Done()
		if err := srv.Serve(l); !errors.Is(err, http.ErrServerClosed) {
			b.stop()
		}
	}()
	return nil
}

// stop cuts everything.
func (b *backend) stop() {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.server != nil {
		b.server.Close()
		b.server = nil
	}
}

func (b *backend) up() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.server != nil
}
