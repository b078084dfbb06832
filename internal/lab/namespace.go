package lab

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"

	"golang.org/x/sys/unix"
)

// namespaceFolder is where `ip netns` looks for names.
const namespaceFolder = "/run/netns"

// A namespace is one network namespace of the lab, held open and named.
type namespace struct {
	name string
	file *os.File
}

// newNamespace makes a namespace, names it for `ip netns` and readies it:
// loopback up, forwarding as wanted, no delays of IPv6.
func newNamespace(name string, forward bool) (*namespace, error) {
	if err := os.MkdirAll(namespaceFolder, 0o755); err != nil {
		return nil, fmt.Errorf("namespace %s: %w", name, err)
	}
	path := filepath.Join(namespaceFolder, name)
	target, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_RDONLY, 0o444)
	if err != nil {
		return nil, fmt.Errorf("namespace %s: %w", name, err)
	}
	target.Close()
	ns := &namespace{name: name}
	err = onOwnThread(func() error {
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			return fmt.Errorf("unshare: %w", err)
		}
		self := fmt.Sprintf("/proc/self/task/%d/ns/net", unix.Gettid())
		if err := unix.Mount(self, path, "", unix.MS_BIND, ""); err != nil {
			return fmt.Errorf("mount: %w", err)
		}
		if ns.file, err = os.Open(self); err != nil {
			return err
		}
		return settle(forward)
	})
	if err != nil {
		ns.close()
		return nil, errors.Join(fmt.Errorf("namespace %s: %w", name, err), removeNamespace(name))
	}
	return ns, nil
}

// settle sets the kernel's switches of the namespace that the thread is in.
// One that this kernel does not have is not missed.
func settle(forward bool) error {
	on := "0"
	if forward {
		on = "1"
	}
	for name, value := range map[string]string{
		"ipv4/ip_forward":                 on,
		"ipv6/conf/all/forwarding":        on,
		"ipv6/conf/all/accept_dad":        "0",
		"ipv6/conf/default/accept_dad":    "0",
		"ipv6/conf/all/accept_ra":         "0",
		"ipv6/conf/default/accept_ra":     "0",
		"ipv4/conf/all/rp_filter":         "0",
		"ipv4/conf/default/rp_filter":     "0",
		"ipv4/conf/all/send_redirects":    "0",
		"ipv4/icmp_ratelimit":             "0",
		"ipv4/ip_unprivileged_port_start": "0",
	} {
		// The kernel shows the switches of the namespace of the thread that opens the file.
		err := os.WriteFile("/proc/sys/net/"+name, []byte(value), 0)
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
	}
	return nil
}

// do runs f on a thread that is in the namespace. Sockets that f opens and
// processes that it starts stay there; goroutines that f starts do not.
func (ns *namespace) do(f func() error) error {
	return onOwnThread(func() error {
		if err := ns.enter(); err != nil {
			return err
		}
		return f()
	})
}

// enter moves the calling thread, which its caller has locked and never unlocks.
func (ns *namespace) enter() error {
	if err := unix.Setns(int(ns.file.Fd()), unix.CLONE_NEWNET); err != nil {
		return fmt.Errorf("enter namespace %s: %w", ns.name, err)
	}
	return nil
}

func (ns *namespace) close() {
	if ns.file != nil {
		ns.file.Close()
	}
}

// onOwnThread runs f on a thread that ends with it, so that what f changes of
// the thread changes nothing else, and waits for it.
func onOwnThread(f func() error) error {
	done := make(chan error, 1)
	startThread(func() { done <- f() })
	return <-done
}

// startThread runs f in a goroutine with a thread of its own. It is never the
// process's first: that one cannot end, and its namespace is taken for the
// process's by everybody who looks.
func startThread(f func()) {
	go func() { // ends with f
		runtime.LockOSThread() // not unlocked after f: the thread ends here
		if unix.Gettid() != unix.Getpid() {
			f()
			return
		}
		elsewhere := make(chan struct{})
		go func() { // ends with f
			runtime.LockOSThread()
			close(elsewhere)
			f()
		}()
		<-elsewhere
		runtime.UnlockOSThread()
	}()
}

// removeNamespace takes the name away; the kernel frees the rest with the last
// process and socket in it. One that is already gone is fine.
func removeNamespace(name string) error {
	path := filepath.Join(namespaceFolder, name)
	if err := unix.Unmount(path, unix.MNT_DETACH); err != nil && !errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.ENOENT) {
		return fmt.Errorf("remove namespace %s: %w", name, err)
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("remove namespace %s: %w", name, err)
	}
	return nil
}
