package node

import (
	"bufio"
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
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/pharos-lb/pharos/bgp/router"
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
}

func newBackend(t *testing.T, addr, name string, hold chan struct{}) *testBackend {
	t.Helper()
	b := &testBackend{addr: addr, hold: hold}
	b.healthy.Store(true)
	mux := http.NewServeMux()
	mux.HandleFunc("/healthz", func(w http.ResponseWriter, r *http.Request) {
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

func lookup(name string) ([]netip.Addr, error) {
	r := &net.Resolver{PreferGo: true, StrictErrors: true, Dial: func(ctx context.Context, network, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, network, "127.9.2.1:5353")
	}}
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	return r.LookupNetIP(ctx, "ip4", name)
}

func answers(name, addr string) bool {
	got, err := lookup(name)
	return err == nil && len(got) == 1 && got[0] == netip.MustParseAddr(addr)
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
	dir := t.TempDir()
	file := filepath.Join(dir, "pharos.yaml")
	write(t, file, config)
	socket := filepath.Join(dir, "a.sock")
	n, err := New(Options{
		ConfigFile: file, Name: "a1", StateDir: filepath.Join(dir, "state"), Socket: socket,
		Version: "test", Speaker: []string{os.Args[0], SpeakerVerb}, Log: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- n.Run(ctx) }()
	stopped := false
	r := &running{Node: n, file: file, client: admin.NewClient(socket)}
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

func write(t *testing.T, file, text string) {
	t.Helper()
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

func TestAnswersOnlyAfterTheFirstVerdict(t *testing.T) {
	hold := make(chan struct{})
	newBackend(t, "127.9.2.11:9000", "one", hold)
	newBackend(t, "127.9.2.12:9000", "two", hold)
	// The check may hang for longer than this part of the test takes.
	config := strings.NewReplacer("WAIT", "1m", "timeout: 200ms", "timeout: 20s", "every: 200ms", "every: 30s").Replace(oneSite)
	r := startNode(t, config)
	if got := r.state(t); got != "starting" {
		t.Fatalf("state %q before any verdict, want starting", got)
	}
	for _, addr := range []string{"127.9.2.1:5353", "127.9.2.80:8080"} {
		if conn, err := net.Dial("tcp", addr); err == nil {
			conn.Close()
			t.Errorf("%s is open before the first verdict", addr)
		}
	}
	close(hold)
	eventually(t, "serving", func() bool { return r.state(t) == "serving" })
	if !answers("www.t.test", "127.9.2.80") {
		t.Error("no answer although serving")
	}
}

func TestOpensWithinABoundedTime(t *testing.T) {
	newBackend(t, "127.9.2.11:9000", "one", make(chan struct{}))
	newBackend(t, "127.9.2.12:9000", "two", make(chan struct{}))
	config := strings.NewReplacer("WAIT", "500ms", "timeout: 200ms", "timeout: 1m", "every: 200ms", "every: 1m").Replace(oneSite)
	r := startNode(t, config)
	eventually(t, "serving although no check ever ends", func() bool { return r.state(t) == "serving" })
	if !answers("www.t.test", "127.9.2.80") {
		t.Error("unknown health must be answered, not hidden")
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

func TestUnhealthyBackendIsSkipped(t *testing.T) {
	one := newBackend(t, "127.9.2.11:9000", "one", released())
	two := newBackend(t, "127.9.2.12:9000", "two", released())
	r := startNode(t, strings.ReplaceAll(oneSite, "WAIT", "5s"))
	eventually(t, "serving", func() bool { return r.state(t) == "serving" })
	onlyFrom := func(want string) func() bool {
		return func() bool {
			for range 10 {
				for _, addr := range []string{"127.9.2.80:8080", "127.9.2.80:8081"} {
					if _, body := get(addr); body != want {
						return false
					}
				}
			}
			return true
		}
	}
	one.healthy.Store(false)
	eventually(t, "all traffic goes to two", onlyFrom("two"))
	one.healthy.Store(true)
	two.healthy.Store(false)
	eventually(t, "all traffic goes to one", onlyFrom("one"))
}

func TestReload(t *testing.T) {
	newBackend(t, "127.9.2.11:9000", "one", released())
	newBackend(t, "127.9.2.12:9000", "two", released())
	base := strings.ReplaceAll(oneSite, "WAIT", "5s")
	r := startNode(t, base)
	eventually(t, "serving", func() bool { return r.state(t) == "serving" })

	// An L4 connection that is open over every reload that follows.
	conn, err := net.Dial("tcp", "127.9.2.80:8081")
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	reader := bufio.NewReader(conn)
	alive := func(when string) {
		t.Helper()
		fmt.Fprint(conn, "GET / HTTP/1.1\r\nHost: x\r\n\r\n")
		resp, err := http.ReadResponse(reader, nil)
		if err != nil {
			t.Fatalf("%s: the old connection broke: %v", when, err)
		}
		io.Copy(io.Discard, resp.Body)
		resp.Body.Close()
	}
	alive("before")

	reload := func(config string, allow bool) error {
		write(t, r.file, config)
		_, err := r.client.Reload(t.Context(), allow)
		return err
	}
	if err := reload(strings.Replace(base, "names: {www:", "names: {new: {service: extra}, www:", 1), false); err != nil {
		t.Fatal(err)
	}
	if !answers("new.t.test", "127.9.2.81") || !answers("www.t.test", "127.9.2.80") {
		t.Error("the new configuration is not answered")
	}
	alive("after a good reload")

	refused := []struct{ name, config, want string }{
		{"syntax", "sites: [", "pharos.yaml:"},
		{"unknown key", strings.Replace(base, "location", "locaton", 1), "did you mean"},
		{"bad zone", strings.Replace(base, "IN SOA", "IN SAO", 1), "SAO"},
		{"large removal", strings.NewReplacer("WAIT", "5s").Replace(base[:strings.Index(base, "  extra:")] + base[strings.Index(base, "zones:"):]), "--allow-remove"},
		{"gossip port", strings.Replace(base, "name: one", "name: one, port: 7999", 1), "needs a restart"},
		{"node gone", strings.Replace(base, "a1:", "a2:", 1), `no node named "a1"`},
		{"address not ours", strings.Replace(base, `vip: {a: 127.9.2.81}`, `vip: {a: 198.51.100.99}`, 1) + `  - {bind: "vip:9090", tcp: {service: extra}}` + "\n", "198.51.100.99:9090"},
	}
	for _, tt := range refused {
		t.Run(tt.name, func(t *testing.T) {
			err := reload(tt.config, false)
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %v, want an error with %q", err, tt.want)
			}
			if !answers("new.t.test", "127.9.2.81") {
				t.Error("the old configuration is no longer in force")
			}
			st, err := r.client.Status(t.Context())
			if err != nil || st.Config.LastError == "" {
				t.Errorf("status does not tell of the refused reload: %v", err)
			}
			alive("after a refused reload")
		})
	}
	if err := reload(refused[3].config, true); err != nil {
		t.Errorf("a large removal that is meant: %v", err)
	}
	var missing *net.DNSError
	if _, err := lookup("new.t.test"); !errors.As(err, &missing) || !missing.IsNotFound {
		t.Errorf("a removed name: got %v, want NXDOMAIN", err)
	}
	alive("after the removal")
}

func TestStopLeavesNothing(t *testing.T) {
	before := goleak.IgnoreCurrent()
	hold := released()
	r := startNode(t, strings.ReplaceAll(oneSite, "WAIT", "300ms"))
	_ = hold
	eventually(t, "serving", func() bool { return r.state(t) == "serving" })
	if err := r.stop(); err != nil {
		t.Fatal(err)
	}
	goleak.VerifyNone(t, before, goleak.IgnoreTopFunction("internal/poll.runtime_pollWait"))
	for _, addr := range []string{"127.9.2.1:5353", "127.9.2.80:8080", "127.9.2.80:8081", "127.9.2.1:7946"} {
		l, err := net.Listen("tcp", addr)
		if err != nil {
			t.Errorf("%s is still in use: %v", addr, err)
			continue
		}
		l.Close()
	}
}

func TestPortInUse(t *testing.T) {
	l, err := net.Listen("tcp", "127.9.2.80:8080")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	r := startNode(t, strings.ReplaceAll(oneSite, "WAIT", "300ms"))
	err = waitStopped(t, r)
	if err == nil || !strings.Contains(err.Error(), "127.9.2.80:8080") || !strings.Contains(err.Error(), "in use") {
		t.Errorf("got %v, want an error that names the address in use", err)
	}
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

// With a router beside it: routes come, go and come back over reloads.
func TestReloadTakesBGPAwayAndBack(t *testing.T) {
	newBackend(t, "127.9.2.11:9000", "one", released())
	newBackend(t, "127.9.2.12:9000", "two", released())
	upstream, err := router.New(router.Options{
		ASN: 64496, Listen: netip.MustParseAddrPort("127.9.2.254:1791"),
		Neighbors: []router.Neighbor{{Address: netip.MustParseAddr("127.9.2.1"), ASN: 64500, Passive: true}},
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- upstream.Run(ctx) }()
	t.Cleanup(func() { cancel(); <-done })
	without := strings.ReplaceAll(oneSite, "WAIT", "5s")
	with := without + `
bgp:
  asn: 64500
  port: 1791
  prefixes: [{prefix: 192.0.2.0/24, requires: [web]}]
  peers: {a: [{address: 127.9.2.254, asn: 64496}]}
`
	r := startNode(t, with)
	eventually(t, "the route is there", func() bool { return len(upstream.Routes()) == 1 })
	for _, config := range []string{without, with, without, with} {
		write(t, r.file, config)
		if _, err := r.client.Reload(t.Context(), true); err != nil {
			t.Fatal(err)
		}
		want := strings.Count(config, "192.0.2.0/24")
		eventually(t, fmt.Sprintf("%d routes", want), func() bool { return len(upstream.Routes()) == want })
	}
	write(t, r.file, strings.Replace(with, "192.0.2.0/24, ", "2001:db8::/48, ", 1))
	if _, err := r.client.Reload(t.Context(), true); err == nil || !strings.Contains(err.Error(), "no next hop of that family") {
		t.Errorf("a prefix that could never be announced: got %v", err)
	}
	if err := r.stop(); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the route is withdrawn by a stop", func() bool { return len(upstream.Routes()) == 0 })
}
