package doctor

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/pharos-lb/pharos/bgp/probe"
	"github.com/pharos-lb/pharos/internal/admin"
	"github.com/pharos-lb/pharos/internal/node"
	"github.com/pharos-lb/pharos/internal/steer"
)

const configuration = `
cluster: {secret: "${GOSSIP_KEY}"}
sites:
  fra: {location: FRA, nodes: {fra1: 10.9.1.1}}
  iad: {location: IAD, nodes: {iad1: 10.9.2.1}}
services:
  web:
    backends: {fra: ["10.9.1.1:9000"]}
    vip: {fra: 10.9.7.80, anycast: 198.18.0.80}
listeners: [{bind: "vip:8080", tcp: {service: web}}]
bgp:
  asn: 64500
  prefixes: [{prefix: 198.18.0.0/24, requires: web}]
  peers: {fra: [{address: 10.9.1.2, asn: 64496 MORE}]}
VIPS
`

// A ward is a fake machine.
type ward struct {
	addresses map[netip.Addr]string
	interfaces,
	incapable string
	listen error
	result probe.Result
	probed []probe.Target
	opened bool
}

func (w *ward) Addresses() (map[netip.Addr]string, error) { return w.addresses, nil }
func (w *ward) Interface(name string) bool                { return strings.Contains(w.interfaces, name) }
func (w *ward) MayListen(netip.AddrPort) error            { return w.listen }
func (w *ward) LeastPort() int                            { return 1024 }
func (w *ward) Capable(_ int, c uint) (has, ok bool) {
	return !strings.Contains(w.incapable, fmt.Sprintf("%d;", c)), true
}

func (w *ward) Probe(_ context.Context, t probe.Target, o probe.Options) probe.Result {
	w.probed, w.opened = append(w.probed, t), o.Open
	return w.result
}

func heard(asn uint32) probe.Result {
	return probe.Result{Cause: probe.Spoke, Heard: &probe.Open{ASN: asn, Hold: 9 * time.Second, RouterID: netip.MustParseAddr("10.9.1.2"), IPv4: true}}
}

// setups are the configurations that were loaded, by what they add: to load one takes long under the race detector, and
// nobody changes it.
var setups = map[string]*node.Setup{}

func load(t *testing.T, more, vips string) *node.Setup {
	t.Helper()
	if s := setups[more+"\n"+vips]; s != nil {
		return s
	}
	t.Setenv("GOSSIP_KEY", "MDEyMzQ1Njc4OWFiY2RlZg==")
	t.Setenv("PASSWORD", "secret-of-the-test")
	file := filepath.Join(t.TempDir(), "pharos.yaml")
	text := strings.NewReplacer(" MORE", more, "VIPS", vips).Replace(configuration)
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	setup, err := node.Load(file, "fra1")
	if err != nil {
		t.Fatal(err)
	}
	setups[more+"\n"+vips] = setup
	return setup
}

// healthy is a node that runs and has nothing wrong.
func healthy(t *testing.T, more, vips string) (*Case, *ward) {
	t.Helper()
	setup := load(t, more, vips)
	w := &ward{
		addresses:  map[netip.Addr]string{netip.MustParseAddr("10.9.1.1"): "eth0", netip.MustParseAddr("198.18.0.80"): "lo", netip.MustParseAddr("10.9.7.80"): "lo"},
		interfaces: "eth0 lo", result: heard(64496),
	}
	now := time.Now()
	router := netip.MustParseAddr("10.9.1.2")
	return &Case{Setup: setup, Machine: w, Status: &admin.Status{
		Node: "fra1", Site: "fra", State: "serving", PID: 77, Version: "1",
		Config:  admin.ConfigStatus{File: setup.Config.File, Hash: fmt.Sprintf("%016x", setup.Config.Hash)},
		Members: []admin.MemberStatus{{Name: "fra1", Self: true, Heard: true}, {Name: "iad1", State: "present", Heard: true}},
		Routes: []admin.RouteStatus{{Prefix: netip.MustParsePrefix("198.18.0.0/24"), Announce: true, Installed: true, Peers: []admin.RoutePeerStatus{
			{Address: router, Wanted: true, Sent: true, Seen: admin.SeenUnknown},
		}}},
		Speaker: &admin.SpeakerStatus{State: "running", Peers: []admin.PeerStatus{{
			Address: router, ASN: 64496, State: "established", Since: now.Add(-time.Minute), Sent: 1, Families: []string{"ipv4"}, HoldSeconds: 9,
		}}},
	}}, w
}

func (c *Case) router() *admin.PeerStatus { return &c.Status.Speaker.Peers[0] }

func lost(c *Case, state, last string) {
	p := c.router()
	p.State, p.LastError, p.Families, p.Sent = state, last, nil, 0
	c.Status.Routes[0].Peers[0].Sent = false
}

const (
	bfd   = ", bfd: {}"
	md5   = `, password: "${PASSWORD}"`
	ownLo = "vips: {interface: lo}"
)

func bfdIs(state, theirs, last string, detects, failures int) func(*Case, *ward) {
	return func(c *Case, _ *ward) {
		c.router().BFD = &admin.BFDStatus{State: state, PeerState: theirs, LastError: last, DetectionMS: int64(detects), Failures: uint64(failures)}
	}
}

func probed(cause probe.Cause, detail string, hops int) func(*Case, *ward) {
	return func(c *Case, w *ward) {
		c.Status = nil
		w.result = probe.Result{Cause: cause, Detail: detail, Hops: hops}
	}
}

// TestFindings breaks one thing at a time: that thing is found, with its cause and what to do, and nothing else is.
func TestFindings(t *testing.T) {
	for _, tc := range []struct {
		name       string
		more, vips string
		spoil      func(*Case, *ward)
		level      Level
		subject    string // of the one finding above Fine
		want       string // in it, anywhere; " & " between several
	}{
		{"all is well", bfd, "", bfdIs("up", "up", "", 900, 2), Fine, "", ""},
		{"all is well, not running", "", "", func(c *Case, _ *ward) { c.Status = nil }, Note, "node fra1", "does not run"},
		{"no BFD", "", "", func(*Case, *ward) {}, Note, "BFD with 10.9.1.2", "hold time of 9s"},
		{"BFD never heard", bfd, "", bfdIs("down", "down", "the router has not been heard", 0, 0), Problem, "BFD with 10.9.1.2", "never heard & 3784 & turn BFD on"},
		{"BFD multihop never heard", ", multihop: 2, bfd: {}", "", bfdIs("down", "down", "the router has not been heard", 0, 0), Problem, "BFD with 10.9.1.2", "4784 & single-hop BFD where this peer has multihop"},
		{"BFD failed", bfd, "", bfdIs("down", "down", "detection time expired", 900, 3), Problem, "BFD with 10.9.1.2", "failed 3 times & detection time expired"},
		{"BFD admin down", bfd, "", bfdIs("down", "admin_down", "", 900, 0), Note, "BFD with 10.9.1.2", "on purpose"},
		{"BFD cannot send", bfd, "", bfdIs("down", "down", "cannot send: operation not permitted", 0, 0), Problem, "BFD with 10.9.1.2", "firewall"},
		{"BFD not in force", bfd, "", func(*Case, *ward) {}, Problem, "BFD with 10.9.1.2", "reload"},

		{"wrong AS there", bfd, "", func(c *Case, _ *ward) {
			lost(c, "idle", "refused it: code 2(open message error) subcode 2(bad peer as)")
		}, Problem, "peer 10.9.1.2", "AS64500 is said & remote AS 64500"},
		{"wrong AS here", bfd, "", func(c *Case, w *ward) { lost(c, "idle", "as number mismatch"); w.result = heard(64497) }, Problem, "peer 10.9.1.2", "is of AS64497, AS64496 is configured & asn: 64497"},
		{"our OPEN is refused", bfd, "", func(c *Case, w *ward) {
			lost(c, "idle", "it refused our OPEN")
			w.result = probe.Result{Cause: probe.Said, Detail: "code 2(open message error) subcode 2(bad peer as)"}
		}, Problem, "peer 10.9.1.2", "AS64500 is said & remote AS 64500"},
		{"our OPEN is refused for another reason", bfd, "", func(c *Case, w *ward) {
			lost(c, "idle", "it refused our OPEN")
			w.result = probe.Result{Cause: probe.Said, Detail: "code 2 subcode 7(unsupported capability)"}
		}, Problem, "peer 10.9.1.2", "unsupported capability & peer-config"},
		{"deconfigured", bfd, "", func(c *Case, _ *ward) { lost(c, "idle", "it refused: code 6(cease) subcode 5(connection rejected)") }, Problem, "peer 10.9.1.2", "does not know us & neighbor 10.9.1.1 with remote AS 64500"},
		{"shut down", bfd, "", func(c *Case, _ *ward) { lost(c, "idle", "it refused: cease (administrative shutdown)") }, Problem, "peer 10.9.1.2", "no shutdown"},
		{"hold timer", bfd, "", func(c *Case, _ *ward) { lost(c, "idle", "hold timer expired") }, Problem, "peer 10.9.1.2", "MTU"},
		{"hold refused", bfd, "", func(c *Case, _ *ward) { lost(c, "idle", "it refused: unacceptable hold time") }, Problem, "peer 10.9.1.2", "`hold`"},
		{"router ID", bfd, "", func(c *Case, _ *ward) { lost(c, "idle", "it refused: bad bgp identifier") }, Problem, "peer 10.9.1.2", "same router ID"},
		{"too many prefixes there", bfd, "", func(c *Case, _ *ward) { lost(c, "idle", "it refused: maximum number of prefixes reached") }, Problem, "peer 10.9.1.2", "raise maximum-prefix"},
		{"too many prefixes here", bfd, "", func(c *Case, _ *ward) { lost(c, "idle", "it sent more prefixes than its limit") }, Problem, "peer 10.9.1.2", "max_prefixes"},
		{"strict", ", bfd: {strict: true}", "", func(c *Case, _ *ward) { lost(c, "idle", "waits for BFD (strict)") }, Problem, "peer 10.9.1.2", "bfd.strict"},
		{"quarantined", bfd, "", func(c *Case, _ *ward) { lost(c, "quarantined", "what it sent ended the BGP process once") }, Problem, "peer 10.9.1.2", "left out"},
		{"unknown to the node", bfd, "", func(c *Case, _ *ward) { c.Status.Speaker.Peers = nil }, Problem, "peer 10.9.1.2", "older configuration"},
		{"the kernel's counters", bfd + md5, "", func(c *Case, w *ward) {
			lost(c, "active", "connect: i/o timeout")
			c.router().Hint = "the passwords likely differ: the kernel drops"
			w.result = probe.Result{Cause: probe.Silent}
		}, Problem, "peer 10.9.1.2", "the passwords likely differ"},
		{"passive", ", passive: true" + bfd, "", func(c *Case, _ *ward) { lost(c, "active", "") }, Problem, "peer 10.9.1.2", "dials 10.9.1.1"},
		{"IPv4 not active", bfd, "", func(c *Case, _ *ward) {
			c.router().Families = []string{"ipv6"}
			c.Status.Routes[0].Peers[0].Sent = false
		}, Problem, "peer 10.9.1.2", "takes no ipv4 & activate ipv4"},
		{"it sends us everything", bfd, "", func(c *Case, w *ward) { c.router().Received = 900_000; bfdIs("up", "up", "", 900, 0)(c, w) }, Note, "peer 10.9.1.2", "900000 prefixes"},

		{"refused", "", "", probed(probe.Refused, "connection refused", 0), Problem, "peer 10.9.1.2", "TCP port 179 from 10.9.1.1 is refused & start BGP"},
		{"filtered", "", "", probed(probe.Silent, "i/o timeout", 0), Problem, "peer 10.9.1.2", "firewall & password"},
		{"another password", md5, "", probed(probe.Silent, "i/o timeout", 0), Problem, "peer 10.9.1.2", "passwords differ"},
		{"no password there", md5, "", probed(probe.NoPassword, "", 0), Problem, "peer 10.9.1.2", "router has no password"},
		{"unreachable", "", "", probed(probe.Unreachable, "no route to host", 0), Problem, "peer 10.9.1.2", "ip route get 10.9.1.2 from 10.9.1.1"},
		{"multihop missing", "", "", probed(probe.Further, "", 3), Problem, "peer 10.9.1.2", "not directly connected & multihop: 3"},
		{"multihop too small", ", multihop: 2", "", probed(probe.Further, "", 5), Problem, "peer 10.9.1.2", "TTL of 5, multihop is 2"},
		{"TTL security there", "", "", probed(probe.WantsTTL, "", 0), Problem, "peer 10.9.1.2", "GTSM & ttl_security"},
		{"TTL security here", ", ttl_security: 2", "", probed(probe.LacksTTL, "", 0), Problem, "peer 10.9.1.2", "ttl_security: 2"},
		{"closed", "", "", probed(probe.Closed, "", 0), Problem, "peer 10.9.1.2", "does not know 10.9.1.1"},
		{"mute", "", "", probed(probe.Mute, "", 0), Note, "peer 10.9.1.2", "--open"},
		{"deaf", "", "", probed(probe.Deaf, "", 0), Problem, "peer 10.9.1.2", "acknowledges nothing"},
		{"not BGP", "", "", probed(probe.Foreign, "it begins with SSH", 0), Problem, "peer 10.9.1.2", "not BGP"},
		{"told so", "", "", probed(probe.Said, "code 2 subcode 2(bad peer as)", 0), Problem, "peer 10.9.1.2", "AS numbers disagree"},
		{"no key", md5, "", probed(probe.NoKey, "protocol not available", 0), Problem, "peer 10.9.1.2", "CONFIG_TCP_MD5SIG"},
		{"forbidden", "", "", probed(probe.Forbidden, "operation not permitted", 0), Problem, "peer 10.9.1.2", "output rules"},
		{"wrong AS, not running", "", "", func(c *Case, w *ward) { c.Status, w.result = nil, heard(64497) }, Problem, "peer 10.9.1.2", "AS64497"},

		{"the speaker is gone", bfd, "", func(c *Case, _ *ward) {
			c.Status.Speaker.State, c.Status.Speaker.LastError = "backoff", "listen tcp 10.9.1.1:179: bind: address already in use"
			bfdIs("up", "up", "", 900, 0)(c, nil)
		}, Problem, "bgp", "another BGP speaker & ss -ltnp"},
		{"the lease ran out", bfd, "", func(c *Case, _ *ward) { c.Status.Speaker.State = "lapsed"; bfdIs("up", "up", "", 900, 0)(c, nil) }, Problem, "bgp", "withdrew everything"},
		{"no speaker", bfd, "", func(c *Case, _ *ward) { c.Status.Speaker = nil }, Problem, "bgp", "reload"},
		{"a stranger", bfd, "", func(c *Case, _ *ward) {
			bfdIs("up", "up", "", 900, 0)(c, nil)
			c.Status.Speaker.Strangers = []netip.Addr{netip.MustParseAddr("10.9.1.9")}
		}, Note, "stranger 10.9.1.9", "update-source"},

		{"the source is missing", bfd, "", func(c *Case, w *ward) {
			delete(w.addresses, netip.MustParseAddr("10.9.1.1"))
			bfdIs("up", "up", "", 900, 0)(c, w)
		}, Problem, "address 10.9.1.1", "another machine than fra1"},
		{"the port is taken", "", "", func(c *Case, w *ward) { c.Status, w.listen = nil, unix.EADDRINUSE }, Problem, "bgp", "something else listens on 10.9.1.1:179"},
		{"the port is refused", "", "", func(c *Case, w *ward) { c.Status, w.listen = nil, errors.New("no") }, Problem, "bgp", "bgp.listen: false"},
		{"the port needs a privilege", "", "", func(c *Case, w *ward) { c.Status, w.incapable = nil, "10;" }, Problem, "bgp", "CAP_NET_BIND_SERVICE"},
		{"VIPs need a privilege", bfd, ownLo, func(c *Case, w *ward) { w.incapable = "12;"; bfdIs("up", "up", "", 900, 0)(c, w) }, Problem, "vips", "CAP_NET_ADMIN & process 77"},
		{"VIPs need an interface", bfd, ownLo, func(c *Case, w *ward) { w.interfaces = "eth0"; bfdIs("up", "up", "", 900, 0)(c, w) }, Problem, "vips", "no interface lo"},
		{"the VIP is nowhere", bfd, "", func(c *Case, w *ward) {
			delete(w.addresses, netip.MustParseAddr("198.18.0.80"))
			bfdIs("up", "up", "", 900, 0)(c, w)
		}, Problem, "VIP 198.18.0.80", "ip addr add 198.18.0.80/32"},
		{"the VIP is held back", bfd, ownLo, func(c *Case, w *ward) {
			delete(w.addresses, netip.MustParseAddr("198.18.0.80"))
			bfdIs("up", "up", "", 900, 0)(c, w)
			c.Status.VIPs = []admin.VIPStatus{{Address: netip.MustParseAddr("198.18.0.80"), Error: "no such device"}}
		}, Problem, "VIP 198.18.0.80", "no such device"},

		{"denied", bfd, "", func(c *Case, w *ward) {
			c.Status.Routes[0].Peers[0].Wanted = false
			bfdIs("up", "up", "", 900, 0)(c, w)
		}, Note, "prefix 198.18.0.0/24", "`to` denies"},
		{"not sent", bfd, "", func(c *Case, w *ward) { c.Status.Routes[0].Peers[0].Sent = false; bfdIs("up", "up", "", 900, 0)(c, w) }, Problem, "prefix 198.18.0.0/24", "adj-out"},
		{"not seen", bfd, "", func(c *Case, w *ward) {
			c.Status.Routes[0].Peers[0].Seen = admin.SeenNot
			bfdIs("up", "up", "", 900, 0)(c, w)
		}, Problem, "prefix 198.18.0.0/24", "RFC 8212 & peer-config"},
		{"not installed", bfd, "", func(c *Case, w *ward) { c.Status.Routes[0].Installed = false; bfdIs("up", "up", "", 900, 0)(c, w) }, Problem, "prefix 198.18.0.0/24", "does not hold it"},
		{"held back", bfd, "", func(c *Case, w *ward) { c.Status.Routes[0].Error = "next hop"; bfdIs("up", "up", "", 900, 0)(c, w) }, Problem, "prefix 198.18.0.0/24", "next hop"},
		{"not announced", bfd, "", func(c *Case, w *ward) {
			c.Status.Routes[0].Announce, c.Status.Routes[0].Why, c.Status.Routes[0].Blame = false, steer.ReasonBackendsDown, "web"
			bfdIs("up", "up", "", 900, 0)(c, w)
		}, Note, "prefix 198.18.0.0/24", "service web: "},

		{"changed on disk", bfd, "", func(c *Case, w *ward) { c.Status.Config.Hash = "0"; bfdIs("up", "up", "", 900, 0)(c, w) }, Problem, "pharos.yaml", "reload"},
		{"refused reload", bfd, "", func(c *Case, w *ward) {
			c.Status.Config.LastError = "line 3: no\nmore"
			bfdIs("up", "up", "", 900, 0)(c, w)
		}, Problem, "pharos.yaml", "line 3: no & validate"},
		{"starting", bfd, "", func(c *Case, w *ward) { c.Status.State = "starting"; bfdIs("up", "up", "", 900, 0)(c, w) }, Problem, "node fra1", "it is starting"},
		{"hangs", "", "", func(c *Case, _ *ward) { c.Status, c.Trouble = nil, errors.New("the node behind s does not answer") }, Problem, "node fra1", "does not answer"},
		{"degraded", bfd, "", func(c *Case, w *ward) { c.Status.Degraded = []string{"x is down"}; bfdIs("up", "up", "", 900, 0)(c, w) }, Note, "node fra1", "x is down"},
		{"never heard", bfd, "", func(c *Case, w *ward) {
			c.Status.Members[1] = admin.MemberStatus{Name: "iad1", State: admin.MemberAbsent}
			bfdIs("up", "up", "", 900, 0)(c, w)
		}, Problem, "node iad1", "7946 & keys"},
		{"not heard now", bfd, "", func(c *Case, w *ward) {
			c.Status.Members[1] = admin.MemberStatus{Name: "iad1", State: "suspect"}
			bfdIs("up", "up", "", 900, 0)(c, w)
		}, Problem, "node iad1", "suspect"},
		{"skew", bfd, "", func(c *Case, w *ward) {
			c.Status.Members[1].Config = "abc"
			bfdIs("up", "up", "", 900, 0)(c, w)
		}, Note, "node iad1", "another configuration"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			c, w := healthy(t, tc.more, tc.vips)
			tc.spoil(c, w)
			report := Run(t.Context(), *c)
			if report.Worst() != tc.level {
				t.Errorf("the worst is %v, want %v", report.Worst(), tc.level)
			}
			found := false
			for _, f := range report.Findings {
				switch {
				case f.Level == Problem && (f.Why == "" || f.Do == ""):
					t.Errorf("a problem without a cause or a remedy: %+v", f)
				case f.Level == tc.level && tc.level != Fine && strings.Contains(f.Subject, tc.subject):
					all := f.Found + "\n" + f.Why + "\n" + f.Do
					for _, part := range strings.Split(tc.want, " & ") {
						if !strings.Contains(all, part) {
							t.Errorf("%q is not in %s", part, all)
						}
					}
					found = true
				case f.Level == Problem && tc.level != Problem, f.Level == Problem && !related(tc.name, f):
					t.Errorf("unexpected: %+v", f)
				}
			}
			if found == (tc.level == Fine) {
				t.Errorf("found %v: %+v", found, report.Findings)
			}
			text, err := json.Marshal(report)
			if err != nil || strings.Contains(string(text), "secret-of-the-test") {
				t.Errorf("the report shows the password, or none: %v", err)
			}
		})
	}
}

// related are further problems that follow from the one that a case makes.
func related(name string, f Finding) bool {
	return strings.HasPrefix(f.Subject, "BFD") && f.Found == "the node runs none, though it is configured"
}

// TestEstablishedSessionsAreLeftInPeace: a second connection can end the first.
func TestEstablishedSessionsAreLeftInPeace(t *testing.T) {
	c, w := healthy(t, bfd, "")
	Run(t.Context(), *c)
	if len(w.probed) != 0 {
		t.Errorf("probed %+v", w.probed)
	}
	lost(c, "active", "")
	c.Open = true
	Run(t.Context(), *c)
	if len(w.probed) != 1 || w.opened {
		t.Errorf("probed %+v, said OPEN beside a node that runs: %v", w.probed, w.opened)
	}
	c.router().LastError = "it refused our OPEN"
	c.Open = false
	Run(t.Context(), *c)
	if len(w.probed) != 2 || !w.opened {
		t.Errorf("probed %+v, said the OPEN that is refused anyway: %v", w.probed, w.opened)
	}
	for _, busy := range []string{"connect", "opensent", "openconfirm"} { // the node says it at this moment
		c.router().State = busy
		if Run(t.Context(), *c); w.opened {
			t.Errorf("said OPEN beside a session that is %s", busy)
		}
	}
	w.probed = w.probed[:2]
	c.Status, c.Open = nil, true
	Run(t.Context(), *c)
	if len(w.probed) != 3 || !w.opened {
		t.Errorf("probed %+v, said OPEN: %v", w.probed, w.opened)
	}
}

// TestSilentNodeIsNoAbsentNode: a node that runs and does not answer may have every session and socket, so that nobody speaks
// beside it, and nothing that it has is taken for another's.
func TestSilentNodeIsNoAbsentNode(t *testing.T) {
	c, w := healthy(t, "", ownLo)
	c.Status, c.Trouble, c.Open = nil, errors.New("the node behind s does not answer"), true
	w.listen, w.incapable = unix.EADDRINUSE, "10;12;"
	delete(w.addresses, netip.MustParseAddr("198.18.0.80"))
	said := false
	for _, f := range Run(t.Context(), *c).Findings {
		said = said || f.Check == "bgp" && f.Level == Note && strings.Contains(f.Found, "not looked at")
		if f.Level == Problem && f.Subject != "node fra1" {
			t.Errorf("unexpected: %+v", f)
		}
		if strings.HasPrefix(f.Subject, "VIP") || strings.HasPrefix(f.Subject, "peer") {
			t.Errorf("looked at beside a node that hangs: %+v", f)
		}
	}
	if len(w.probed) != 0 {
		t.Errorf("dialled %+v beside a node that hangs", w.probed)
	}
	if !said {
		t.Error("it is not said that the routers were not looked at")
	}
}

// TestRangeNotes: of a router from a prefix of peers everything is said but the advice to use BFD, which it cannot.
func TestRangeNotes(t *testing.T) {
	c, _ := healthy(t, "}, {from: 10.9.1.128/25, asn: 64497", "")
	in := netip.MustParsePrefix("10.9.1.128/25")
	guest := *c.router()
	guest.Address, guest.From, guest.ASN, guest.Received = netip.MustParseAddr("10.9.1.130"), in, 64497, 900_000
	c.Status.Speaker.Peers = append(c.Status.Speaker.Peers, guest)
	c.Status.Speaker.Ranges = []admin.RangeStatus{{From: in, ASN: 64497, MaxPeers: 2, Sessions: 1}}
	sends := false
	for _, f := range Run(t.Context(), *c).Findings {
		sends = sends || f.Subject == "peer 10.9.1.130 (AS64497)" && f.Level == Note && strings.Contains(f.Found, "900000 prefixes")
		if f.Subject == "BFD with 10.9.1.130" {
			t.Errorf("%+v", f)
		}
	}
	if !sends {
		t.Error("nothing is said of the prefixes that it sends")
	}
}

func TestOnly(t *testing.T) {
	c, _ := healthy(t, bfd, "")
	c.Only = []string{"config"}
	for _, f := range Run(t.Context(), *c).Findings {
		if f.Check != "config" {
			t.Errorf("%+v", f)
		}
	}
	var l Level
	if err := l.UnmarshalText([]byte("problem")); err != nil || l != Problem {
		t.Errorf("%v, %v", l, err)
	}
	if l.UnmarshalText([]byte("dire")) == nil {
		t.Error("an unknown level was taken")
	}
}
