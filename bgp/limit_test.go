package bgp

import (
	"encoding/json"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/pharos-lb/pharos/bgp/internal/engine"
)

// A chatterbox says what a router process sends to the speaker; see runTestSender.
type chatterbox struct {
	Address, Speaker netip.Addr
	Port             uint16
	Prefixes         int
}

// runTestSender is the main of a router that sends prefixes. It ends when its input does.
func runTestSender(encoded string) error {
	var c chatterbox
	if err := json.Unmarshal([]byte(encoded), &c); err != nil {
		return err
	}
	e, err := engine.Start(engine.Options{
		ASN: routerASN, RouterID: c.Address, Listen: []netip.Addr{c.Address}, Port: int(c.Port),
	})
	if err != nil {
		return err
	}
	for i := range c.Prefixes {
		p := netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 0, byte(i), 0}), 24)
		if err := e.Announce(engine.Path{Prefix: p, Exports: engine.ToAll(engine.Attributes{NextHop: c.Address})}); err != nil {
			return err
		}
	}
	if err := e.Add(engine.Neighbor{
		Address: c.Speaker, Local: c.Address, ASN: speakerASN, Hold: 9 * time.Second, Passive: true,
	}); err != nil {
		return err
	}
	_, _ = os.Stdin.Read(make([]byte, 1))
	return e.Stop(patience)
}

func (l *lab) sender(host byte, prefixes int) {
	l.t.Helper()
	encoded, err := json.Marshal(chatterbox{l.addr(host), l.addr(1), l.port, prefixes})
	if err != nil {
		l.t.Fatal(err)
	}
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = childEnvironment(append(os.Environ(), senderVerb+"="+string(encoded)))
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		l.t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		l.t.Fatal(err)
	}
	l.t.Cleanup(func() {
		_ = in.Close()
		_ = cmd.Wait() // how it ends is not what is tested
	})
}

// TestMaxPrefixes: a router that sends one prefix more than it may is cut; one at the limit is not.
func TestMaxPrefixes(t *testing.T) {
	const limit = 3
	l := newLab(t)
	l.sender(2, limit)
	l.sender(3, limit+1)
	peers := []Peer{l.peer(2), l.peer(3)}
	peers[0].MaxPrefixes, peers[1].MaxPrefixes = limit, limit
	g := l.speaker(Options{Peers: peers}, Route{Prefix: anycast})
	s := g.await("the cut of the one above, and the session of the other", func(s Status) bool {
		return s.Peers[0].State == "established" && s.Peers[0].Sent == 1 &&
			s.Peers[1].State == "idle" && strings.Contains(s.Peers[1].LastError, "more prefixes than its limit")
	})
	if s.Peers[0].LastError != "" {
		t.Errorf("the peer at the limit: %+v", s.Peers[0])
	}
	since := s.Peers[0].Since
	g.set(Route{Prefix: second}) // goes out on a session that is still the same
	s = g.await("the next route", func(s Status) bool {
		return len(s.Routes) == 1 && s.Routes[0].Prefix == second && s.Routes[0].Installed
	})
	if s.Peers[0].State != "established" || s.Peers[0].Since != since || s.Peers[1].State != "idle" {
		t.Errorf("sessions are %+v", s.Peers)
	}
}
