package main

import (
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/pharos-lb/pharos/internal/admin"
)

// TestUpgradesUnderAServiceManager: SIGUSR2 upgrades too, the service manager hears who the main process is from the
// one that it believes, and upgrades leave neither processes nor descriptors behind.
func TestUpgradesUnderAServiceManager(t *testing.T) {
	r := newUpgradeRig(t)
	name := filepath.Join(r.dir, "notify")
	manager, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: name, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer manager.Close()
	said := make(chan string, 100)
	go func() {
		buffer := make([]byte, 4096)
		for {
			n, err := manager.Read(buffer)
			if err != nil {
				return
			}
			said <- string(buffer[:n])
		}
	}()
	r.start("NOTIFY_SOCKET=" + name)
	hear := func(want string) {
		t.Helper()
		for timer := time.After(20 * time.Second); ; {
			select {
			case s := <-said:
				if strings.Contains(s, want) {
					return
				}
			case <-timer:
				t.Fatalf("the service manager did not hear %q", want)
			}
		}
	}
	hear("READY=1")
	first := r.processes()[0]
	var descriptors, epochs []int
	for i := range 4 {
		pid := r.processes()[0]
		if i%2 == 0 {
			if err := syscall.Kill(pid, syscall.SIGUSR2); err != nil {
				t.Fatal(err)
			}
		} else if _, err := r.upgrade(admin.UpgradeRequest{}); err != nil {
			t.Fatal(err)
		}
		r.within(20*time.Second, "one new process", func() bool {
			now := r.processes()
			return len(now) == 1 && now[0] != pid && r.ready() == nil
		})
		hear(fmt.Sprintf("MAINPID=%d", r.processes()[0]))
		fds, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", r.processes()[0]))
		if err != nil {
			t.Fatal(err)
		}
		descriptors = append(descriptors, len(fds))
		var epoch int
		if data, err := os.ReadFile(filepath.Join(r.dir, "state", "epoch")); err != nil {
			t.Fatal(err)
		} else if _, err := fmt.Sscan(string(data), &epoch); err != nil {
			t.Fatal(err)
		}
		epochs = append(epochs, epoch)
	}
	if grown := descriptors[3] - descriptors[0]; grown > 8 { // probes come and go
		t.Errorf("open descriptors after each upgrade: %v", descriptors)
	}
	for i := 1; i < len(epochs); i++ {
		if epochs[i] <= epochs[i-1] {
			t.Errorf("epochs %v do not rise", epochs)
		}
	}
	if r.processes()[0] == first {
		t.Error("it is the first process still")
	}
	// The folder is still locked, and the socket's file goes with the last process.
	if _, err := admin.NewClient(r.socket).Status(context.Background()); err != nil {
		t.Error(err)
	}
	if err := syscall.Kill(r.processes()[0], syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	r.within(20*time.Second, "the end", func() bool { return len(r.processes()) == 0 })
	if exists(r.socket) {
		t.Error("the socket's file is still there")
	}
}
