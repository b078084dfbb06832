package admin

import (
	"context"
	"crypto/subtle"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/pharos-lb/pharos/internal/config"
	"github.com/pharos-lb/pharos/internal/handover"
	"github.com/pharos-lb/pharos/internal/steer"
)

// Options are what a Server needs. The functions are called from many
// goroutines at once.
type Options struct {
	// Socket is the unix socket's path; its folder must exist. Mode 0660.
	Socket string
	// Listen is the TCP address; the zero value means none.
	Listen netip.AddrPort
	// Token is what TCP callers must bear; required with Listen.
	Token string

	Status  func() *Status
	Explain func(ExplainRequest) (*steer.Explanation, error)
	Reload  func(ctx context.Context, allow Allowed) (*ReloadResult, error)
	// Override gives orders, or says what they would do. All of a request is done
	// or, on an error, nothing. It may take some seconds. This function and those
	// that follow may be nil: the API then answers 501 for it.
	Override func(context.Context, OverrideRequest) (*OverrideResult, error)
	// Overrides lists the orders that stand; with cleared, every register.
	Overrides func(cleared bool) *OverrideList
	// Drains asks every node how far what is drained has come.
	Drains func(context.Context) *DrainList
	// Check returns the health opinions on the targets that match. A pattern that
	// matches nothing is an error.
	Check func(context.Context, CheckRequest) (*CheckResult, error)
	// Keys returns who holds which gossip keys; ChangeKeys changes this node's.
	Keys       func() *KeyStatus
	ChangeKeys func(KeyChange) (*KeyStatus, error)
	// ExplainHTTP traces one HTTP request.
	ExplainHTTP func(HTTPQuestion) (*HTTPExplanation, error)
	// Upgrade hands everything over to a new process.
	Upgrade func(context.Context, UpgradeRequest) (*UpgradeResult, error)
	// Ready returns nil when the node serves.
	Ready    func() error
	Gatherer prometheus.Gatherer
	Log      *slog.Logger
}

// Limits of the API.
const (
	maxHeaderBytes  = 16 << 10
	readTimeout     = 10 * time.Second
	writeTimeout    = time.Minute
	shutdownTimeout = 2 * time.Second
	dialTimeout     = 500 * time.Millisecond
	maxSocketPath   = 107 // bytes (unix(7))
)

// A Server is the admin API. New binds its sockets, Run serves.
type Server struct {
	opts  Options
	unix  net.Listener
	tcp   net.Listener // nil = none
	close sync.Once
	left  atomic.Bool
}

// New binds the sockets. A socket file whose owner is gone is replaced; one
// that answers means that another node runs and is an error.
func New(opts Options) (*Server, error) {
	if opts.Listen.IsValid() && opts.Token == "" {
		return nil, fmt.Errorf("admin.listen %s: needs admin.token_file: the API over TCP is never open", opts.Listen)
	}
	unix, err := listenUnix(opts.Socket)
	if err != nil {
		return nil, err
	}
	s := &Server{opts: opts, unix: unix}
	if opts.Listen.IsValid() {
		if s.tcp, err = listenTCP(opts.Listen.String()); err != nil {
			s.Close()
			return nil, fmt.Errorf("admin.listen: %w", err)
		}
	}
	return s, nil
}

func listenTCP(address string) (net.Listener, error) {
	if l, err := handover.Listener("tcp", address); l != nil || err != nil {
		return l, err
	}
	return net.Listen("tcp", address)
}

// OwnFile says whether the unix socket's file goes when it is closed: not while another process has the socket as well.
func (s *Server) OwnFile(own bool) {
	if l, ok := s.unix.(*net.UnixListener); ok {
		l.SetUnlinkOnClose(own)
	}
}

func listenUnix(path string) (net.Listener, error) {
	if len(path) > maxSocketPath {
		return nil, fmt.Errorf("admin socket %s: the path has %d bytes, a socket's at most %d; give a shorter one with --socket", path, len(path), maxSocketPath)
	}
	if l, err := handover.Listener("unix", path); err != nil {
		return nil, fmt.Errorf("admin socket: take it over: %w", err)
	} else if l != nil {
		return l, nil
	}
	if conn, err := net.DialTimeout("unix", path, dialTimeout); err == nil {
		conn.Close()
		return nil, fmt.Errorf("admin socket %s: another pharos answers on it; stop it, or give this one its own with --socket", path)
	}
	if info, err := os.Lstat(path); err == nil && info.Mode()&os.ModeSocket == 0 {
		return nil, fmt.Errorf("admin socket %s: a file that is not a socket is in the way", path)
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("admin socket: remove the stale one: %w", err)
	}
	l, err := net.Listen("unix", path)
	if err != nil {
		return nil, fmt.Errorf("admin socket: %w (make the folder %s, or give another path with --socket)", err, filepath.Dir(path))
	}
	if err := os.Chmod(path, 0o660); err != nil {
		l.Close()
		return nil, fmt.Errorf("admin socket: %w", err)
	}
	return l, nil
}

// Addr returns the TCP address that is listened on; invalid if none.
func (s *Server) Addr() netip.AddrPort {
	if s.tcp == nil {
		return netip.AddrPort{}
	}
	return s.tcp.Addr().(*net.TCPAddr).AddrPort()
}

// Run serves until ctx ends, then gives running requests two seconds.
func (s *Server) Run(ctx context.Context) error {
	local := s.serverFor(s.routes("unix"))
	remote := s.serverFor(s.guard(s.routes("tcp")))
	var wg sync.WaitGroup
	errs := make(chan error, 2)
	serve := func(srv *http.Server, l net.Listener) {
		defer wg.Done()
		if err := srv.Serve(l); err != nil && !errors.Is(err, http.ErrServerClosed) && !s.left.Load() {
			errs <- fmt.Errorf("serve admin API on %s: %w", l.Addr(), err)
		}
	}
	wg.Add(1)
	go serve(local, s.unix)
	if s.tcp != nil {
		wg.Add(1)
		go serve(remote, s.tcp)
	}
	var err error
	select {
	case <-ctx.Done():
	case err = <-errs:
	}
	stop, cancel := context.WithTimeout(context.WithoutCancel(ctx), shutdownTimeout)
	defer cancel()
	for _, srv := range []*http.Server{local, remote} {
		if srv.Shutdown(stop) != nil {
			srv.Close()
		}
	}
	wg.Wait()
	return err
}

// Leave accepts nothing more and leaves the sockets, and the unix socket's file, to another process that has them as well. Requests
// that run go on until Run ends.
func (s *Server) Leave() {
	s.left.Store(true)
	s.OwnFile(false)
	s.Close()
}

// Close frees the sockets.
func (s *Server) Close() error {
	s.close.Do(func() {
		s.unix.Close()
		if s.tcp != nil {
			s.tcp.Close()
		}
	})
	return nil
}

func (s *Server) serverFor(h http.Handler) *http.Server {
	return &http.Server{
		Handler: h, MaxHeaderBytes: maxHeaderBytes,
		ReadTimeout: readTimeout, WriteTimeout: writeTimeout,
		ErrorLog: slog.NewLogLogger(s.opts.Log.Handler(), slog.LevelDebug),
	}
}

// routes are the API for callers that come via "unix" or "tcp".
func (s *Server) routes(via string) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /livez", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "ok") })
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, _ *http.Request) {
		if err := s.opts.Ready(); err != nil {
			http.Error(w, err.Error(), http.StatusServiceUnavailable)
			return
		}
		fmt.Fprintln(w, "ok")
	})
	mux.Handle("GET /metrics", promhttp.HandlerFor(s.opts.Gatherer, promhttp.HandlerOpts{}))
	mux.HandleFunc("GET /v1/status", func(w http.ResponseWriter, _ *http.Request) { reply(w, s.opts.Status()) })
	mux.HandleFunc("GET /v1/explain", s.explain)
	mux.HandleFunc("POST /v1/explain/http", s.explainHTTP)
	mux.HandleFunc("POST /v1/reload", s.reload)
	mux.HandleFunc("POST /v1/upgrade", func(w http.ResponseWriter, r *http.Request) { s.upgrade(w, r, via) })
	mux.HandleFunc("GET /v1/overrides", s.overrides)
	mux.HandleFunc("GET /v1/drains", s.drains)
	mux.HandleFunc("POST /v1/overrides", func(w http.ResponseWriter, r *http.Request) { s.override(w, r, via) })
	mux.HandleFunc("GET /v1/check", s.check)
	mux.HandleFunc("GET /v1/keys", s.keys)
	mux.HandleFunc("POST /v1/keys", s.changeKeys)
	return mux
}

// guard wants the token for everything that is not a health check.
func (s *Server) guard(next http.Handler) http.Handler {
	open := map[string]bool{"/livez": true, "/readyz": true}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		got, bearer := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
		if !open[r.URL.Path] && (!bearer || subtle.ConstantTimeCompare([]byte(got), []byte(s.opts.Token)) != 1) {
			w.Header().Set("WWW-Authenticate", "Bearer")
			http.Error(w, "a bearer token is needed (admin.token_file)", http.StatusUnauthorized)
			return
		}
		next.ServeHTTP(w, r)
	})
}

func (s *Server) explain(w http.ResponseWriter, r *http.Request) {
	q := r.URL.Query()
	from, err := netip.ParseAddr(q.Get("from"))
	if err != nil {
		http.Error(w, fmt.Sprintf("from: %q is not an IP address", q.Get("from")), http.StatusBadRequest)
		return
	}
	var ipv6 bool
	switch strings.ToUpper(q.Get("type")) {
	case "", "A":
	case "AAAA":
		ipv6 = true
	default:
		http.Error(w, fmt.Sprintf("type: %q is not A or AAAA", q.Get("type")), http.StatusBadRequest)
		return
	}
	e, err := s.opts.Explain(ExplainRequest{Name: q.Get("name"), IPv6: ipv6, From: from, Down: q["down"]})
	if err != nil {
		http.Error(w, err.Error(), http.StatusUnprocessableEntity)
		return
	}
	reply(w, e)
}

func (s *Server) reload(w http.ResponseWriter, r *http.Request) {
	q := r.URL.Query()
	result, err := s.opts.Reload(r.Context(), Allowed{Remove: q.Get("allow_remove") == "true", Withdraw: q.Get("allow_withdraw") == "true"})
	var mistakes config.Errors
	switch {
	case errors.As(err, &mistakes):
		http.Error(w, "\n"+mistakes.Pretty(), http.StatusUnprocessableEntity) // each with its place
		return
	case err != nil:
		http.Error(w, err.Error(), http.StatusUnprocessableEntity)
		return
	}
	reply(w, result)
}

func reply(w http.ResponseWriter, v any) {
	w.Header().Set("Content-Type", "application/json")
	body, err := json.Marshal(v)
	if err != nil {
		http.Error(w, "encode reply: "+err.Error(), http.StatusInternalServerError)
		return
	}
	w.Write(append(body, '\n')) // the caller has gone; nobody is left to tell
}
