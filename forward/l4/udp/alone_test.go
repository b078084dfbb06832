package udp

import (
	"net/netip"
	"os"
	"os/exec"
	"runtime"
	"syscall"
	"testing"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
)

const aloneWord = "PHAROS_TEST_ALONE"

// alone runs the test in a process and a network namespace of its own, with loopback up: what it does to interfaces and routes
// is nobody else's. It returns false in the process that only waits for the other one.
func alone(t *testing.T) bool {
	t.Helper()
	if os.Getenv(aloneWord) == t.Name() {
		lo, err := netlink.LinkByName("lo")
		if err == nil {
			err = netlink.LinkSetUp(lo)
		}
		if err != nil {
			t.Fatal(err)
		}
		return true
	}
	if os.Geteuid() != 0 {
		missing(t, "root is needed")
	}
	cmd := exec.Command(os.Args[0], "-test.run=^"+t.Name()+"$", "-test.v")
	cmd.Env = append(os.Environ(), aloneWord+"="+t.Name())
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET, Pdeathsig: syscall.SIGKILL}
	runtime.LockOSThread() // its end is what the signal speaks of
	defer runtime.UnlockOSThread()
	out, err := cmd.CombinedOutput()
	t.Logf("%s", out)
	if err != nil {
		t.Error(err)
	}
	return false
}

func missing(t *testing.T, what string) {
	t.Helper()
	if os.Getenv("CI") == "true" {
		t.Fatal(what)
	}
	t.Skip(what)
}

// A place is a network namespace that is connected to the one that the test runs in.
type place struct {
	t  *testing.T
	ns netns.NsHandle
}

// A cable is how a place is connected: addresses with their prefix lengths, here and there.
type cable struct {
	name        string
	here, there []string
}

// connect makes a place with an interface called eth0, whose other end is here and has the name of the cable. There
// everything goes by way of here.
func connect(t *testing.T, c cable) *place {
	t.Helper()
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	here, err := netns.Get()
	must(t, err)
	defer here.Close()
	there, err := netns.New()
	must(t, err)
	must(t, netns.Set(here))
	p := &place{t, there}
	t.Cleanup(func() { there.Close() })
	must(t, netlink.LinkAdd(&netlink.Veth{
		LinkAttrs: netlink.LinkAttrs{Name: c.name}, PeerName: "eth0", PeerNamespace: netlink.NsFd(int(there)),
	}))
	up(t, c.name, c.here)
	p.do(func() {
		up(t, "lo", nil)
		up(t, "eth0", c.there)
		eth0, err := netlink.LinkByName("eth0")
		must(t, err)
		for _, a := range c.here {
			gateway := netip.MustParsePrefix(a).Addr()
			must(t, netlink.RouteAdd(&netlink.Route{LinkIndex: eth0.Attrs().Index, Gw: gateway.AsSlice()}))
		}
	})
	return p
}

func up(t *testing.T, name string, addresses []string) {
	t.Helper()
	l, err := netlink.LinkByName(name)
	must(t, err)
	for _, a := range addresses {
		addr, err := netlink.ParseAddr(a)
		must(t, err)
		addr.Flags = syscall.IFA_F_NODAD
		must(t, netlink.AddrAdd(l, addr))
	}
	must(t, netlink.LinkSetUp(l))
}

// do runs f there. Sockets that f opens stay there.
func (p *place) do(f func()) {
	p.t.Helper()
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	here, err := netns.Get()
	must(p.t, err)
	defer here.Close()
	must(p.t, netns.Set(p.ns))
	f()
	must(p.t, netns.Set(here))
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
