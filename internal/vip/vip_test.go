package vip

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/pharos-lb/pharos/bgp/bed"
)

var (
	a4 = netip.MustParseAddr("198.18.0.80")
	b4 = netip.MustParseAddr("198.18.0.81")
	a6 = netip.MustParseAddr("2001:db8:80::1")
)

// crashVerb makes the test binary a Manager that kills itself at a step: interface, file, step.
const crashVerb = "PHAROS_VIP_TEST_CRASH"

func TestMain(m *testing.M) {
	if spec := os.Getenv(crashVerb); spec != "" {
		crash(strings.Fields(spec))
	}
	os.Exit(m.Run())
}

// A place is a namespace with a Manager's file.
type place struct {
	t    *testing.T
	ns   *bed.Namespace
	file string
}

func newPlace(t *testing.T) *place {
	t.Helper()
	t.Parallel()
	return &place{t, bed.New(t).Namespace("node"), filepath.Join(t.TempDir(), "vips")}
}

func (p *place) open(linger time.Duration) *Manager {
	p.t.Helper()
	var m *Manager
	p.ns.Do(func() (err error) {
		m, err = New(Options{Interface: "lo", File: p.file, Linger: linger})
		return err
	})
	p.t.Cleanup(func() { _ = m.Close() })
	return m
}

func (p *place) run(m *Manager) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		p.ns.Do(func() error { return m.Run(ctx) })
	}()
	p.t.Cleanup(func() {
		cancel()
		<-done
	})
}

// have returns the addresses of lo without its own.
func (p *place) have() string {
	p.t.Helper()
	var out []string
	for line := range strings.Lines(p.ns.Run("ip", "-o", "addr", "show", "dev", "lo")) {
		if f := strings.Fields(line); f[3] != "127.0.0.1/8" && f[3] != "::1/128" {
			out = append(out, f[3])
		}
	}
	slices.Sort(out)
	return strings.Join(out, " ")
}

func (p *place) want(want string) {
	p.t.Helper()
	if got := p.have(); got != want {
		p.t.Fatalf("on lo: %q, want %q", got, want)
	}
}

func (p *place) await(what string, cond func() bool) { p.t.Helper(); bed.Await(p.t, what, cond) }

func set(t *testing.T, m *Manager, want ...netip.Addr) {
	t.Helper()
	if err := m.Set(want); err != nil {
		t.Fatal(err)
	}
}

func TestBindAndUnbind(t *testing.T) {
	p := newPlace(t)
	m := p.open(300 * time.Millisecond)
	p.run(m)
	set(t, m, a4, b4, a6)
	p.want("198.18.0.80/32 198.18.0.81/32 2001:db8:80::1/128") // at once: listeners open next
	if out := p.ns.Run("ip", "-o", "-6", "addr", "show", "dev", "lo"); strings.Contains(out, "tentative") {
		t.Errorf("the address is not usable yet: %s", out)
	}
	began := time.Now()
	set(t, m, a4)
	p.want("198.18.0.80/32 198.18.0.81/32 2001:db8:80::1/128") // never in the step that withdraws
	p.await("the linger", func() bool { return p.have() == "198.18.0.80/32" })
	if took := time.Since(began); took < 300*time.Millisecond {
		t.Errorf("unbound after %v, before the linger time", took)
	}
	// Wanted again while it lingers: it was never gone.
	set(t, m, a4, b4)
	set(t, m, a4)
	set(t, m, a4, b4)
	time.Sleep(500 * time.Millisecond) // longer than the linger time
	p.want("198.18.0.80/32 198.18.0.81/32")
	if err := m.Release(); err != nil {
		t.Fatal(err)
	}
	p.want("")
}

func TestForeignAddressesStay(t *testing.T) {
	p := newPlace(t)
	p.ns.Run("ip", "addr", "add", "198.18.0.80/32", "dev", "lo")
	p.ns.Run("ip", "addr", "add", "198.18.9.9/32", "dev", "lo")
	m := p.open(time.Millisecond)
	p.run(m)
	set(t, m, a4, b4)
	if got := m.Missing(netip.MustParsePrefix("198.18.0.0/24")); len(got) != 0 {
		t.Errorf("missing %v", got)
	}
	if got := m.Status()[0]; !got.Bound || got.Ours {
		t.Errorf("an address that was there is taken for ours: %+v", got)
	}
	set(t, m)
	p.await("ours to go", func() bool { return !strings.Contains(p.have(), "198.18.0.81") })
	if err := m.Release(); err != nil {
		t.Fatal(err)
	}
	p.want("198.18.0.80/32 198.18.9.9/32")
}

func TestRemovedByOthers(t *testing.T) {
	p := newPlace(t)
	m := p.open(time.Hour)
	set(t, m, a4, b4, a6)
	// Nothing runs: it is seen, and stays missing.
	p.ns.Run("ip", "addr", "del", "198.18.0.80/32", "dev", "lo")
	p.run(m)
	p.await("the restoration", func() bool { return strings.Contains(p.have(), "198.18.0.80/32") })
	// The kernel's news are heard long before the next look.
	began := time.Now()
	p.ns.Run("ip", "addr", "del", "2001:db8:80::1/128", "dev", "lo")
	p.await("the restoration", func() bool { return strings.Contains(p.have(), "2001:db8:80::1/128") })
	if took := time.Since(began); took > lookEvery/2 {
		t.Errorf("restored after %v: the news were not heard", took)
	}
}

// TestMissing: what cannot be bound is named and holds back its own prefix only.
func TestMissing(t *testing.T) {
	p := newPlace(t)
	p.ns.Run("ip", "link", "add", "vips", "type", "veth", "peer", "name", "other")
	var m *Manager
	p.ns.Do(func() (err error) {
		m, err = New(Options{Interface: "vips", File: p.file})
		return err
	})
	t.Cleanup(func() { _ = m.Close() })
	set(t, m, a4, a6)
	p.ns.Run("ip", "link", "del", "vips")
	p.run(m)
	p.await("the loss", func() bool { return len(m.Missing(netip.MustParsePrefix("198.18.0.0/24"))) == 1 })
	if got := m.Missing(netip.MustParsePrefix("198.19.0.0/24")); len(got) != 0 {
		t.Errorf("missing %v of a prefix without VIPs", got)
	}
	if s := m.Status()[0]; s.Error == "" || s.Bound {
		t.Errorf("the loss is not told: %+v", s)
	}
	p.ns.Run("ip", "link", "add", "vips", "type", "veth", "peer", "name", "other")
	p.await("the return", func() bool { return len(m.Missing(netip.MustParsePrefix("0.0.0.0/0"))) == 0 })
}

// TestSetGivesUp: a reload that fails leaves nothing of itself behind.
func TestSetGivesUp(t *testing.T) {
	p := newPlace(t)
	m := p.open(time.Millisecond)
	set(t, m, a4)
	bad := netip.MustParseAddr("ff02::1") // the kernel refuses a multicast address
	if err := m.Set([]netip.Addr{a4, b4, bad}); err == nil || !strings.Contains(err.Error(), "ff02::1") {
		t.Fatalf("error %v, want one that names ff02::1", err)
	}
	p.want("198.18.0.80/32")
	p.run(m)
	p.ns.Run("ip", "addr", "del", "198.18.0.80/32", "dev", "lo")
	p.await("the old state to be kept", func() bool { return p.have() == "198.18.0.80/32" })
}

// TestCrash kills the process at every step. What it bound is known to the next one: kept when wanted, else unbound.
func TestCrash(t *testing.T) {
	for _, step := range []string{"noted", "bound", "set", "lingering", "unbound"} {
		for _, wanted := range []bool{true, false} {
			t.Run(fmt.Sprintf("%s wanted=%v", step, wanted), func(t *testing.T) {
				p := newPlace(t)
				p.ns.Run("ip", "addr", "add", "198.18.9.9/32", "dev", "lo")
				self, err := os.Executable()
				if err != nil {
					t.Fatal(err)
				}
				cmd := p.ns.Command(self)
				cmd.Env = append(os.Environ(), crashVerb+"="+p.file+" "+step)
				out, err := cmd.CombinedOutput()
				var exit *exec.ExitError
				if !errors.As(err, &exit) || exit.Sys().(syscall.WaitStatus).Signal() != syscall.SIGKILL {
					t.Fatalf("it did not crash: %v\n%s", err, out)
				}
				m := p.open(time.Millisecond)
				p.run(m)
				if wanted {
					set(t, m, a4)
					p.want("198.18.0.80/32 198.18.9.9/32")
					if s := m.Status()[0]; !s.Ours {
						t.Errorf("after the crash it is nobody's: %+v", s)
					}
				}
				set(t, m)
				p.await("only the foreign address to be left", func() bool { return p.have() == "198.18.9.9/32" })
				bed.Await(t, "the ledger to be empty", func() bool {
					text, _ := os.ReadFile(p.file)
					return !strings.Contains(string(text), "198")
				})
			})
		}
	}
}

// dying is a kernel in which the process dies.
type dying struct {
	kernel
	step string
}

func (d dying) add(a netip.Addr) error {
	d.at("noted")
	err := d.kernel.add(a)
	d.at("bound")
	return err
}

func (d dying) remove(a netip.Addr) error {
	d.at("lingering")
	err := d.kernel.remove(a)
	d.at("unbound")
	return err
}

func (d dying) at(step string) {
	if d.step == step {
		_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
		select {}
	}
}

func crash(args []string) {
	m, err := New(Options{Interface: "lo", File: args[0], Linger: time.Nanosecond})
	if err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	d := dying{m.kernel, args[1]}
	m.kernel = d
	if err := m.Set([]netip.Addr{a4}); err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	d.at("set")
	fmt.Println(m.Release())
	os.Exit(1)
}

func TestLedger(t *testing.T) {
	l := ledger{filepath.Join(t.TempDir(), "vips")}
	ours := map[netip.Addr]bool{a4: true, a6: true}
	if got, err := l.read("lo"); err != nil || len(got) != 0 {
		t.Errorf("no file: %v, %v", got, err)
	}
	if err := l.write("lo", ours); err != nil {
		t.Fatal(err)
	}
	got, err := l.read("lo")
	if d := cmp.Diff(ours, got, cmp.Comparer(func(a, b netip.Addr) bool { return a == b })); d != "" || err != nil {
		t.Errorf("%v\n%s", err, d)
	}
	if _, err := l.read("dummy0"); err == nil {
		t.Error("addresses of another interface are forgotten")
	}
	for _, text := range []string{"198.18.0.80\n", "interface lo\nbroken\n", "\x00\x00"} {
		if err := os.WriteFile(l.file, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		if _, err := l.read("lo"); err == nil {
			t.Errorf("%q is read", text)
		}
	}
}

// TestUnprivileged: the error says what to do.
func TestUnprivileged(t *testing.T) {
	p := newPlace(t)
	if _, err := exec.LookPath("setpriv"); err != nil {
		t.Skip("setpriv is not installed")
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := p.ns.Command("setpriv", "--bounding-set", "-net_admin", self)
	cmd.Env = append(os.Environ(), crashVerb+"="+p.file+" never")
	out, _ := cmd.CombinedOutput()
	if !strings.Contains(string(out), "CAP_NET_ADMIN") || !strings.Contains(string(out), "pharos-vips.conf") {
		t.Errorf("it says: %s", out)
	}
	p.want("")
}

func TestNoInterface(t *testing.T) {
	if _, err := New(Options{Interface: "nosuch0", File: filepath.Join(t.TempDir(), "vips")}); err == nil || !strings.Contains(err.Error(), "nosuch0") {
		t.Errorf("error %v", err)
	}
}
