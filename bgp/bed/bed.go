package bed

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// patience bounds every command and wait.
const patience = 30 * time.Second

var beds atomic.Uint32

// A Bed is what one test laid out.
type Bed struct {
	t     testing.TB
	id    string
	links int
}

// A Namespace is one machine.
type Namespace struct {
	bed  *Bed
	Name string // for ip netns
}

// New checks that this machine can.
func New(t testing.TB) *Bed {
	t.Helper()
	if os.Getuid() != 0 {
		missing(t, "network namespaces need root")
	}
	need(t, "ip", "iproute2")
	return &Bed{t: t, id: fmt.Sprintf("pb%d-%d", os.Getpid(), beds.Add(1))}
}

// Cores checks that this machine has so many.
func Cores(t testing.TB, n int) {
	t.Helper()
	if have := runtime.NumCPU(); have < n {
		missing(t, fmt.Sprintf("%d cores are needed, there are %d", n, have))
	}
}

// missing skips the test, or fails it where nothing may be skipped.
func missing(t testing.TB, why string) {
	t.Helper()
	if os.Getenv("CI") == "true" {
		t.Fatal(why + ", and in CI nothing is skipped")
	}
	t.Skip(why)
}

// need finds a program of a Debian package.
func need(t testing.TB, program, pkg string) string {
	t.Helper()
	for _, p := range []string{program, "/usr/sbin/" + program, "/usr/lib/frr/" + program} {
		if path, err := exec.LookPath(p); err == nil {
			return path
		}
	}
	missing(t, program+" is not installed (Debian: "+pkg+")")
	return ""
}

// Namespace makes a machine with its loopback up.
func (b *Bed) Namespace(name string) *Namespace {
	b.t.Helper()
	ns := &Namespace{bed: b, Name: b.id + "-" + name}
	b.run("ip", "netns", "add", ns.Name)
	b.t.Cleanup(func() { _ = exec.Command("ip", "netns", "del", ns.Name).Run() })
	ns.Run("sysctl", "-qw", "net.ipv6.conf.default.accept_dad=0", "net.ipv6.conf.all.accept_dad=0", "net.ipv4.ip_forward=1",
		"net.ipv6.conf.all.forwarding=1")
	ns.Run("ip", "link", "set", "lo", "up")
	return ns
}

// Link connects two machines. The addresses, several with spaces between, have their prefix length. It returns the names
// of the two interfaces.
func (b *Bed) Link(x *Namespace, xAddrs string, y *Namespace, yAddrs string) (xName, yName string) {
	b.t.Helper()
	b.links++
	xName, yName = fmt.Sprintf("l%da", b.links), fmt.Sprintf("l%db", b.links)
	b.run("ip", "link", "add", xName, "netns", x.Name, "type", "veth", "peer", "name", yName, "netns", y.Name)
	x.up(xName, xAddrs)
	y.up(yName, yAddrs)
	return xName, yName
}

func (ns *Namespace) up(link, addrs string) {
	ns.bed.t.Helper()
	for _, a := range strings.Fields(addrs) {
		if strings.Contains(a, ":") {
			ns.Run("ip", "addr", "add", a, "dev", link, "nodad")
		} else {
			ns.Run("ip", "addr", "add", a, "dev", link)
		}
	}
	ns.Run("ip", "link", "set", link, "up")
}

func (b *Bed) run(args ...string) string {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	out, err := exec.CommandContext(ctx, args[0], args[1:]...).CombinedOutput()
	if err != nil {
		b.t.Fatalf("%s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return string(out)
}

// Run runs a command on the machine and returns what it printed; an error ends the test.
func (ns *Namespace) Run(args ...string) string {
	ns.bed.t.Helper()
	return ns.bed.run(append([]string{"ip", "netns", "exec", ns.Name}, args...)...)
}

// Command is a command that would run on the machine.
func (ns *Namespace) Command(args ...string) *exec.Cmd {
	return exec.Command("ip", append([]string{"netns", "exec", ns.Name}, args...)...)
}

// Drop has the machine drop what arrives and matches, in the words of nft: "udp dport 3784". It returns how to end that.
func (ns *Namespace) Drop(match string) (undo func()) {
	ns.bed.t.Helper()
	need(ns.bed.t, "nft", "nftables")
	table := fmt.Sprintf("drop%d", beds.Add(1))
	ns.Run("nft", "add", "table", "inet", table)
	ns.Run("nft", "add", "chain", "inet", table, "in", "{ type filter hook input priority 0; policy accept; }")
	ns.Run("nft", "add", "rule", "inet", table, "in", match, "drop")
	return func() {
		ns.bed.t.Helper()
		ns.Run("nft", "delete", "table", "inet", table)
	}
}

// Do runs f on a thread of the machine. Sockets that f opens and processes that it starts stay there; goroutines that f
// starts do not.
func (ns *Namespace) Do(f func() error) {
	ns.bed.t.Helper()
	done := make(chan error, 1)
	onOwnThread(func() {
		done <- func() error {
			file, err := os.Open(filepath.Join("/run/netns", ns.Name))
			if err != nil {
				return err
			}
			defer file.Close()
			if err := unix.Setns(int(file.Fd()), unix.CLONE_NEWNET); err != nil {
				return err
			}
			return f()
		}()
	})
	if err := <-done; err != nil {
		ns.bed.t.Fatal(err)
	}
}

// onOwnThread runs f in a goroutine whose thread ends with it, and is never the process's first, which cannot end.
func onOwnThread(f func()) {
	go func() {
		runtime.LockOSThread() // not unlocked after f
		if unix.Gettid() != unix.Getpid() {
			f()
			return
		}
		elsewhere := make(chan struct{})
		go func() {
			runtime.LockOSThread()
			close(elsewhere)
			f()
		}()
		<-elsewhere
		runtime.UnlockOSThread()
	}()
}

// A daemon is one process that ends with the test.
type daemon struct {
	cmd  *exec.Cmd
	done chan struct{}
}

func (ns *Namespace) start(log string, args ...string) *daemon {
	ns.bed.t.Helper()
	cmd := ns.Command(args...)
	out, err := os.Create(log)
	if err != nil {
		ns.bed.t.Fatal(err)
	}
	defer out.Close()
	cmd.Stdout, cmd.Stderr = out, out
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := cmd.Start(); err != nil {
		ns.bed.t.Fatal(err)
	}
	d := &daemon{cmd: cmd, done: make(chan struct{})}
	go func() {
		_ = cmd.Wait()
		close(d.done)
	}()
	ns.bed.t.Cleanup(d.kill)
	return d
}

func (d *daemon) kill() {
	_ = syscall.Kill(-d.cmd.Process.Pid, syscall.SIGKILL)
	<-d.done
}

// signal reaches the daemon itself: ip netns exec has become it.
func (d *daemon) signal(sig syscall.Signal) { _ = syscall.Kill(d.cmd.Process.Pid, sig) }

// Await polls until cond is true and returns how long that took; it ends the test when it never is. Routers tell nobody
// what they do, so that they have to be asked.
func Await(t testing.TB, what string, cond func() bool) time.Duration {
	t.Helper()
	began := time.Now()
	for !cond() {
		if time.Since(began) > patience {
			t.Fatalf("waited in vain for %s", what)
		}
		time.Sleep(20 * time.Millisecond)
	}
	return time.Since(began)
}
