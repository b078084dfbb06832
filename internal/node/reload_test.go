package node

import (
	"context"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/pharos-lb/pharos/internal/admin"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/pharos-lb/pharos/cluster"
	"github.com/pharos-lb/pharos/internal/health"
)

// A reload that fails late frees what it had prepared, and the next one works.
func TestRefusedReloadFreesWhatItBound(t *testing.T) {
	t.Parallel()
	base := at("127.9.41.", strings.ReplaceAll(oneSite, "WAIT", "300ms"))
	r := startServing(t, base)
	const (
		newTCP  = "  - {bind: \"127.9.41.81:9090\", tcp: {service: extra}}\n"
		newHTTP = "  - {bind: \"127.9.41.81:9091\", http: {routes: [{service: extra}]}}\n"
		newDNS  = `dns: {listen: ["127.9.41.1:5353", "127.9.41.3:5353"]}`
		notOurs = "  - {bind: \"198.51.100.99:9092\", http: {routes: [{service: extra}]}}\n"
		bgp     = "bgp: {asn: 64500, port: 1799, peers: {a: [{address: 127.9.41.254, asn: 64496}]}}\n"
	)
	all := edit(t, base, `dns: {listen: "127.9.41.1:5353"}`, newDNS) + newTCP + newHTTP + bgp
	addresses := []string{"127.9.41.81:9090", "127.9.41.81:9091", "127.9.41.3:5353"}

	for _, tt := range []struct {
		name, config, want string
		breaks             func(t *testing.T) (repair func())
	}{
		{"http address not ours", edit(t, all, newHTTP, newHTTP+notOurs), "198.51.100.99:9092", nil},
		{"dns address in use", all, "127.9.41.3:5353", func(t *testing.T) func() {
			l := occupy(t, "127.9.41.3:5353")
			return func() { l.Close() }
		}},
		{"no BGP speaker", all, "bgp:", func(t *testing.T) func() {
			taken := prometheus.NewGauge(prometheus.GaugeOpts{Name: "pharos_bgp_peers", Help: "Peers configured."})
			r.registry.MustRegister(taken)
			return func() { r.registry.Unregister(taken) }
		}},
		{"asked by nobody any more", all, "context canceled", nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			repair := func() {}
			if tt.breaks != nil {
				repair = tt.breaks(t)
			}
			write(t, r.file, tt.config)
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			if strings.Contains(tt.want, "cancel") {
				busy := make(chan struct{})
				defer close(busy)
				taken := make(chan struct{})
				go r.decider.do(t.Context(), func() { close(taken); <-busy })
				<-taken
				cancel()
			}
			if _, err := r.Reload(ctx, admin.Allowed{}); err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %v, want an error with %q", err, tt.want)
			}
			repair()
			for _, addr := range addresses {
				if !free(addr) {
					t.Errorf("%s is still taken after the refusal", addr)
				}
			}
		})
	}
	if _, err := r.reload(t, all, false); err != nil {
		t.Fatalf("a good reload after the refused ones: %v", err)
	}
	for _, addr := range addresses {
		if !dials(addr) {
			t.Errorf("%s is not open after the good reload", addr)
		}
	}
	if !answersAt("127.9.41.3:5353", "www.t.test", "127.9.41.80") {
		t.Error("the new DNS address does not answer")
	}
}

// What status and metrics say follows each reload, and so do the checks and
// what the other nodes are told.
func TestReloadReachesEveryPart(t *testing.T) {
	t.Parallel()
	one := newBackend(t, "127.9.42.11:9000", "one", released())
	newBackend(t, "127.9.42.12:9000", "two", released())
	base := at("127.9.42.", strings.ReplaceAll(oneSite, "WAIT", "5s"))
	anyPath := strings.ReplaceAll(base, "path: /healthz", "path: /")
	one.healthy.Store(false)
	r := startServing(t, anyPath)
	status := func() (hash string, failed bool) {
		st, err := r.client.Status(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		return st.Config.Hash, st.Config.LastError != ""
	}
	before, _ := status()
	if _, err := r.reload(t, "rubbish", false); err == nil {
		t.Fatal("rubbish was taken")
	}
	if hash, failed := status(); hash != before || !failed || valueOf(t, r.metrics.reloadOK) != 0 {
		t.Errorf("after a refusal: hash %s (was %s), failure shown %v, metric %v", hash, before, failed, valueOf(t, r.metrics.reloadOK))
	}

	result, err := r.reload(t, edit(t, base, "{a1: 127.9.42.1}", "{a1: 127.9.42.1, a2: 127.9.42.2}"), false)
	if err != nil {
		t.Fatal(err)
	}
	if hash, failed := status(); hash == before || hash != result.Hash || failed || valueOf(t, r.metrics.reloadOK) != 1 {
		t.Errorf("after a reload: hash %s, want %s; failure shown %v, metric %v", hash, result.Hash, failed, valueOf(t, r.metrics.reloadOK))
	}
	for _, m := range r.gossip.Members() {
		if m.Self && hashText(m.Meta.Config) != result.Hash {
			t.Errorf("the others are told of configuration %s, want %s", hashText(m.Meta.Config), result.Hash)
		}
	}
	target := health.Target{Kind: health.KindBackend, Service: "web", Site: "a", Addr: netip.MustParseAddrPort("127.9.42.11:9000")}
	eventually(t, "the verdict follows the new path, which fails", func() bool {
		return r.decider.view.Load().Of(target).Status == health.StatusDown
	})
	joinsUnasked(t, r, "a2", "127.9.42.2:7946")
}

// joinsUnasked runs the gossip of another node, which knows nobody, and waits
// until the node has found it.
func joinsUnasked(t *testing.T, r *running, name, addr string) {
	t.Helper()
	other, err := cluster.New(cluster.Options{
		Name: name, Label: "one", Bind: netip.MustParseAddrPort(addr), Meta: cluster.Meta{Site: "a"},
		Deliver: func(*health.Report, time.Duration) {},
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- other.Run(ctx) }()
	defer func() {
		cancel()
		<-ended
		other.Close()
	}()
	eventually(t, "the new node is looked for and found", func() bool {
		return slices.ContainsFunc(r.gossip.Members(), func(m cluster.Member) bool {
			return m.Name == name && (m.State == cluster.StateAlive || m.State == cluster.StateSuspect)
		})
	})
}

// A new service is not answered before something is known of it, and the
// reload takes as long; but not for ever.
func TestReloadWaitsForFirstVerdicts(t *testing.T) {
	t.Parallel()
	newBackend(t, "127.9.43.11:9000", "one", released())
	newBackend(t, "127.9.43.12:9000", "two", released())
	hold := make(chan struct{})
	slow := newBackend(t, "127.9.43.13:9000", "slow", hold)
	never := newBackend(t, "127.9.43.14:9000", "never", make(chan struct{}))
	base := at("127.9.43.", strings.ReplaceAll(oneSite, "WAIT", "1m"))
	r := startServing(t, base)
	const server = "127.9.43.1:5353"
	service := func(name, backend, vip string) string {
		return "  " + name + ":\n    check: {http: {path: /healthz}, every: 200ms, timeout: 100ms, rise: 1, fall: 100, recheck: 50ms}\n" +
			"    backends: {a: [\"" + backend + "\"]}\n    vip: {a: " + vip + "}\n"
	}
	withSlow := edit(t, base, "zones:\n", service("slow", slow.addr, "127.9.43.82")+"zones:\n",
		"names: {", "names: {slow: {service: slow}, ")
	write(t, r.file, withSlow)
	reloaded := make(chan error, 1)
	go func() {
		_, err := r.Reload(t.Context(), admin.Allowed{})
		reloaded <- err
	}()
	eventually(t, "the new backend was asked five times", func() bool { return slow.checks.Load() >= 5 })
	select {
	case err := <-reloaded:
		t.Fatalf("the reload returned (%v) before anything was known of the new service", err)
	default:
	}
	if !absent(server, "slow.t.test") {
		t.Error("the new name is answered, or DNS is broken, before anything is known of the new service")
	}
	close(hold)
	if err := <-reloaded; err != nil {
		t.Fatal(err)
	}
	if got := r.decider.view.Load().Of(health.Target{
		Kind: health.KindBackend, Service: "slow", Site: "a", Addr: netip.MustParseAddrPort(slow.addr),
	}).Status; got != health.StatusUp {
		t.Errorf("the reload returned while the verdict is %s", got)
	}
	if !answersAt(server, "slow.t.test", "127.9.43.82") {
		t.Error("the new name is not answered after the reload")
	}

	const wait = 500 * time.Millisecond
	began := time.Now()
	if _, err := r.reload(t, edit(t, withSlow, "wait: 1m", "wait: "+wait.String(),
		"zones:\n", service("never", never.addr, "127.9.43.83")+"zones:\n", "names: {", "names: {never: {service: never}, "), false); err != nil {
		t.Fatal(err)
	}
	if took := time.Since(began); took < wait || took > patience/2 {
		t.Errorf("a reload with a service that never answers took %s, want about %s", took, wait)
	}
	if !answersAt(server, "never.t.test", "127.9.43.83") {
		t.Error("unknown health must be answered after the wait, not hidden")
	}
}

// Only a node that serves can take a new configuration.
func TestReloadNeedsAServingNode(t *testing.T) {
	t.Parallel()
	n := nodeIn(t, t.TempDir(), at("127.9.44.", strings.ReplaceAll(oneSite, "WAIT", "300ms")))
	refused := func(phase string) {
		t.Helper()
		hash := n.setup.Load().Config.Hash
		if _, err := n.Reload(t.Context(), admin.Allowed{Remove: true, Withdraw: true}); err == nil || !strings.Contains(err.Error(), "is "+phase) {
			t.Errorf("while %s: got %v, want a refusal", phase, err)
		}
		if n.setup.Load().Config.Hash != hash {
			t.Errorf("while %s: the configuration changed", phase)
		}
	}
	refused("starting")
	r := start(t, n)
	eventually(t, "serving", func() bool { return r.state(t) == "serving" })
	if err := r.stop(); err != nil {
		t.Fatal(err)
	}
	refused("stopping")
}

// A reload that would take away what is announced is refused, unless it is meant.
func TestReloadGuardsAnnouncedRoutes(t *testing.T) {
	t.Parallel()
	newBackend(t, "127.9.45.11:9000", "one", released())
	newBackend(t, "127.9.45.12:9000", "two", released())
	base := at("127.9.45.", strings.ReplaceAll(oneSite, "WAIT", "5s")+strings.Replace(peered, "1791", "1792", 1))
	r := startServing(t, base)
	eventually(t, "the route is to be announced", func() bool { return r.board.Load().Routes[0].Announce })
	const http, tcp = "  - {bind: \"vip:8080\", http: {routes: [{service: web}]}}\n", "  - {bind: \"vip:8081\", tcp: {service: web}}\n"
	for _, tt := range []struct{ name, config, want, flag string }{
		{"no listener", edit(t, base, "listeners:\n", "", http, "", tcp, ""), "close the last listener of service web", "--allow-remove"},
		{"no peer", edit(t, base, "peers: {a: [{address: 127.9.45.254, asn: 64496}]}", "peers: {}"), "no site would announce 192.0.2.0/24 any more (a did)", "--allow-withdraw"},
	} {
		if _, err := r.reload(t, tt.config, false); err == nil || !strings.Contains(err.Error(), tt.want) || !strings.Contains(err.Error(), tt.flag) {
			t.Errorf("%s: got %v, want a refusal with %q", tt.name, err, tt.want)
		}
		if !dials("127.9.45.80:8081") || !r.board.Load().Routes[0].Announce {
			t.Errorf("%s: a refused reload took something away", tt.name)
		}
		if _, err := r.reload(t, tt.config, true); err != nil {
			t.Errorf("%s, meant: %v", tt.name, err)
		}
		if _, err := r.reload(t, base, true); err != nil {
			t.Fatalf("%s, back: %v", tt.name, err)
		}
		eventually(t, "the route is to be announced again", func() bool { return r.board.Load().Routes[0].Announce })
	}
}

// A reload that requires more of a prefix does not ask for it before it is there: the route stands all the while.
func TestReloadWithANewDoorKeepsTheRoute(t *testing.T) {
	t.Parallel()
	const network = "127.9.72."
	newBackend(t, network+"11:9000", "one", released())
	newBackend(t, network+"12:9000", "two", released()).healthy.Store(false)
	base := at(network, strings.ReplaceAll(oneSite, "WAIT", "3s")) + at(network, `
bgp:
  asn: 64500
  listen: false
  prefixes: [{prefix: 127.9.2.0/24, requires: [web], flap_half_life: 0s}]
  peers: {a: [{address: 127.9.2.254, asn: 64496}]}
`)
	r := startServing(t, base)
	eventually(t, "announced", func() bool { return r.board.Load().Routes[0].Announce })
	next := edit(t, base, `dns: {listen: "`+network+`1:5353"}`, `dns: {listen: ["`+network+`1:5353", "`+network+`80:5353"]}`)
	next = edit(t, next, "requires: [web]", `requires: [web, "dns:www.t.test"]`)
	newBackend(t, network+"13:9000", "three", make(chan struct{})) // the reload waits as long as it may for its verdict
	next = edit(t, next, "services:\n", "services:\n  slow: {check: {http: {path: /healthz}, timeout: 10s, every: 20s}, backends: {a: [\""+network+"13:9000\"]}}\n")
	woken, unwatch := r.board.Watch()
	defer unwatch()
	done := make(chan struct{})
	go func() {
		defer close(done)
		if _, err := r.reload(t, next, false); err != nil {
			t.Error(err)
		}
	}()
	for over := false; !over; {
		select {
		case <-woken:
		case <-done:
			over = true
		}
		if route := r.board.Load().Routes[0]; !route.Announce {
			t.Fatalf("withdrawn: %s %s", route.Why, route.Lacks)
		}
	}
	eventually(t, "it answers at both doors", func() bool {
		return slices.Equal(r.board.Load().Facts.Doors, []health.Status{health.StatusUp, health.StatusUp})
	})
}

// TestSessionRate: what a node may take of UDP sessions reaches those who count them, at the start and with a reload.
func TestSessionRate(t *testing.T) {
	t.Parallel()
	base := at("127.9.93.", strings.ReplaceAll(oneSite, "WAIT", "300ms"))
	r := startServing(t, base+"limits: {session_rate: 1}\n")
	taken := func() (n int) {
		for n < 1000 && r.backends.Intake().TakeSession() {
			n++
		}
		return n
	}
	if n := taken(); n == 1000 {
		t.Error("limited to one a second: 1000 are taken")
	}
	write(t, r.file, base)
	if _, err := r.Reload(t.Context(), admin.Allowed{}); err != nil {
		t.Fatal(err)
	}
	if n := taken(); n != 1000 {
		t.Errorf("without a limit %d are taken", n)
	}
}
