package offload

import (
	"os"
	"runtime"
	"testing"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
)

// namespace puts the test into a network namespace of its own, with loopback up. Without root the test is skipped,
// where the whole suite has to run it fails.
func namespace(t *testing.T) netns.NsHandle {
	t.Helper()
	if os.Geteuid() != 0 {
		missing(t, "root is needed")
	}
	runtime.LockOSThread() // the thread ends with the test
	before, err := netns.Get()
	if err != nil {
		t.Fatal(err)
	}
	ns, err := netns.New()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := netns.Set(before); err != nil {
			t.Error(err)
		}
		ns.Close()
		before.Close()
	})
	lo, err := netlink.LinkByName("lo")
	if err == nil {
		err = netlink.LinkSetUp(lo)
	}
	if err != nil {
		t.Fatal(err)
	}
	return ns
}

func missing(t *testing.T, what string) {
	t.Helper()
	if os.Getenv("CI") == "true" {
		t.Fatal(what)
	}
	t.Skip(what)
}

// open makes a lane in the present namespace.
func open(t *testing.T, opts Options) *Lane {
	t.Helper()
	l, err := New(opts)
	if err != nil {
		missing(t, err.Error())
	}
	t.Cleanup(l.Close)
	return l
}

// still makes a lane that is never emptied: what has been done to the network may be heard of much later.
func still(t *testing.T) *Lane {
	t.Helper()
	l := open(t, Options{})
	l.watch.close()
	<-l.done
	return l
}

// enter has a subtest run in a namespace.
func enter(t *testing.T, ns netns.NsHandle) {
	t.Helper()
	runtime.LockOSThread()
	if err := netns.Set(ns); err != nil {
		t.Fatal(err)
	}
}
