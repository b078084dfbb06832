package node

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/pharos-lb/pharos/internal/admin"
)

// patience bounds every wait of these tests; reaching it is a failure.
const patience = 30 * time.Second

// eventually waits for something that happens by itself.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	deadline := time.Now().Add(patience)
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		if time.Now().After(deadline) {
			t.Fatalf("still not after %s: %s", patience, what)
		}
		<-tick.C
	}
}

// A testBackend is a web server that can be told to hang or fail.
type testBackend struct {
	addr    string
	healthy atomic.Bool
	hold    chan struct{} // health checks wait for it
	checks  atomic.Int64  // that have come in
}

func newBackend(t *testing.T, addr, name string, hold chan struct{}) *testBackend {
	t.Helper()
	b := &testBackend{addr: addr, hold: hold}
	b.healthy.Store(true)
	mux := http.NewServeMux()
	mux.HandleFunc("/healthz", func(w http.ResponseWriter, r *http.Request) {
		b.checks.Add(1)
		select {
		case <-b.hold:
		case <-r.Context().Done():
		}
		if !b.healthy.Load() {
			w.WriteHeader(http.StatusInternalServerError)
		}
	})
	mux.HandleFunc("/", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, name) })
	l, err := net.Listen("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	srv := &http.Server{Handler: mux}
	done := make(chan struct{})
	go func() { defer close(done); srv.Serve(l) }()
	t.Cleanup(func() { srv.Close(); <-done })
	return b
}

func released() chan struct{} {
	ch := make(chan struct{})
	close(ch)
	return ch
}

// oneSite is a fleet of one node on addresses 127.9.2.x.
const oneSite = `
cluster: {name: one, wait: WAIT}
sites:
  a: {location: FRA, nodes: {a1: 127.9.2.1}}
services:
  web:
    check: {http: {path: /healthz}, every: 200ms, timeout: 200ms, rise: 1, fall: 2, recheck: 50ms}
    backends: {a: ["127.9.2.11:9000", "127.9.2.12:9000"]}
    vip: {a: 127.9.2.80}
  extra:
    check: {http: {path: /healthz}, every: 200ms, rise: 1, fall: 2}
    backends: {a: ["127.9.2.11:9000"]}
    vip: {a: 127.9.2.81}
zones:
  t.test:
    records: |
      @   300 IN SOA ns1 root 1 3600 600 86400 60
      @   300 IN NS  ns1
      ns1 300 IN A   127.9.2.1
    names: {www: {service: web}}
dns: {listen: "127.9.2.1:5353"}
listeners:
  - {bind: "vip:8080", http: {routes: [{service: web}]}}
  - {bind: "vip:8081", tcp: {service: web}}
`

// at moves a configuration to addresses of its own, so that tests can run
// beside each other.
func at(network, config string) string { return strings.ReplaceAll(config, "127.9.2.", network) }

func lookup(name string) ([]netip.Addr, error) { return lookupAt("127.9.2.1:5353", name) }

func lookupAt(server, name string) ([]netip.Addr, error) {
	r := &net.Resolver{PreferGo: true, StrictErrors: true, Dial: func(ctx context.Context, network, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, network, server)
	}}
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	return r.LookupNetIP(ctx, "ip4", name)
}

func answers(name, addr string) bool { return answersAt("127.9.2.1:5353", name, addr) }

func answersAt(server, name, addr string) bool {
	got, err := lookupAt(server, name)
	return err == nil && len(got) == 1 && got[0] == netip.MustParseAddr(addr)
}

// absent reports whether a server that answers has no such name.
func absent(server, name string) bool {
	_, err := lookupAt(server, name)
	missing, ok := errors.AsType[*net.DNSError](err)
	return ok && missing.IsNotFound
}

// dials reports whether a TCP address accepts connections.
func dials(addr string) bool {
	conn, err := net.Dial("tcp", addr)
	if err == nil {
		conn.Close()
	}
	// Whoever has no backend to give resets, perhaps before connect has returned.
	return err == nil || errors.Is(err, syscall.ECONNRESET)
}

// free reports whether nobody listens at an address, neither over TCP nor over UDP.
func free(addr string) bool {
	l, err := net.Listen("tcp", addr)
	if err != nil {
		return false
	}
	defer l.Close()
	p, err := net.ListenPacket("udp", addr)
	if err != nil {
		return false
	}
	p.Close()
	return true
}

// occupy takes a TCP address until the test ends.
func occupy(t *testing.T, addr string) net.Listener {
	t.Helper()
	l, err := net.Listen("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l
}

// nodeIn makes, but does not run, node a1 with its files in dir.
func nodeIn(t *testing.T, dir, config string) *Node {
	t.Helper()
	return nodeNamed(t, "a1", dir, config)
}

// nodeNamed is nodeIn for a node of another name.
func nodeNamed(t *testing.T, name, dir, config string) *Node {
	t.Helper()
	file := filepath.Join(dir, "pharos.yaml")
	write(t, file, config)
	n, err := New(Options{
		ConfigFile: file, Name: name, StateDir: filepath.Join(dir, "state"), Socket: filepath.Join(dir, "a.sock"),
		Version: "test", Speaker: []string{os.Args[0], SpeakerVerb}, Log: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { n.Close() })
	return n
}

// A running node and how to ask it.
type running struct {
	*Node
	file   string
	client *admin.Client
	stop   func() error
}

func startNode(t *testing.T, config string) *running {
	t.Helper()
	return start(t, nodeIn(t, t.TempDir(), config))
}

// startServing starts a node and waits until it serves.
func startServing(t *testing.T, config string) *running {
	t.Helper()
	r := startNode(t, config)
	eventually(t, "serving", func() bool { return r.state(t) == "serving" })
	return r
}

func start(t *testing.T, n *Node) *running {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- n.Run(ctx) }()
	stopped := false
	r := &running{Node: n, file: n.opts.ConfigFile, client: admin.NewClient(n.opts.Socket)}
	r.stop = func() error {
		if stopped {
			return nil
		}
		stopped = true
		cancel()
		return <-done
	}
	t.Cleanup(func() { r.stop() })
	return r
}

func (r *running) state(t *testing.T) string {
	t.Helper()
	st, err := r.client.Status(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return st.State
}

// valueOf reads one counter or gauge.
func valueOf(t *testing.T, c prometheus.Collector) float64 {
	t.Helper()
	reg := prometheus.NewRegistry()
	reg.MustRegister(c)
	families, err := reg.Gather()
	if err != nil || len(families) != 1 || len(families[0].Metric) != 1 {
		t.Fatalf("got %d metrics (%v), want 1", len(families), err)
	}
	m := families[0].Metric[0]
	return m.GetCounter().GetValue() + m.GetGauge().GetValue() // one of them is nil, so 0
}

// replaceOnce changes the one place where old is in text.
func replaceOnce(t *testing.T, text, old, replacement string) string {
	t.Helper()
	if strings.Count(text, old) != 1 {
		t.Fatalf("%q is %d times in the text, want once", old, strings.Count(text, old))
	}
	return strings.Replace(text, old, replacement, 1)
}

// reload puts a configuration into the file and has the node read it.
func (r *running) reload(t *testing.T, config string, allow bool) (*admin.ReloadResult, error) {
	t.Helper()
	write(t, r.file, config)
	return r.client.Reload(t.Context(), admin.Allowed{Remove: allow, Withdraw: allow})
}

func write(t testing.TB, file, text string) {
	t.Helper()
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

func get(addr string) (int, string) {
	client := &http.Client{Timeout: 5 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
	resp, err := client.Get("http://" + addr + "/")
	if err != nil {
		return 0, err.Error()
	}
	defer resp.Body.Close()
	body, _ := io.ReadAll(resp.Body)
	return resp.StatusCode, string(body)
}

func waitStopped(t *testing.T, r *running) error {
	t.Helper()
	result := make(chan error, 1)
	eventually(t, "the node gives up", func() bool {
		st, err := r.client.Status(t.Context())
		return err != nil || st.State == "stopping"
	})
	go func() { result <- r.stop() }()
	select {
	case err := <-result:
		return err
	case <-time.After(patience):
		t.Fatal("the node did not stop")
		return nil
	}
}
