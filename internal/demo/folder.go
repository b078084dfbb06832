package demo

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/pharos-lb/pharos/internal/admin"
)

// Names in the demo's folder.
const (
	configName  = "demo.yaml"
	lockName    = "lock"
	controlName = "control.sock"
)

// folderPath is the one place where a user's demo keeps its sockets, logs and
// state.
func folderPath() string {
	return filepath.Join(os.TempDir(), fmt.Sprintf("pharos-demo-%d", os.Getuid()))
}

// A folder is the demo's, locked: there is one demo per user.
type folder struct {
	path string
	lock *os.File
}

// claim makes a fresh folder, or says that a demo already runs.
func claim(path string) (*folder, error) {
	if err := os.Mkdir(path, 0o700); err != nil && !errors.Is(err, os.ErrExist) {
		return nil, fmt.Errorf("demo folder: %w", err)
	}
	info, err := os.Lstat(path)
	if err != nil {
		return nil, fmt.Errorf("demo folder: %w", err)
	}
	if st, ok := info.Sys().(*syscall.Stat_t); !info.IsDir() || !ok || int(st.Uid) != os.Getuid() {
		return nil, fmt.Errorf("demo folder %s: it belongs to somebody else; set TMPDIR to a folder of your own", path)
	}
	lock, err := os.OpenFile(filepath.Join(path, lockName), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("demo folder: %w", err)
	}
	if err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		lock.Close()
		pid, _ := os.ReadFile(filepath.Join(path, lockName))
		return nil, fmt.Errorf("a demo is already running (process %s); see it with `pharos demo status`, end it with `pharos demo stop`", strings.TrimSpace(string(pid)))
	}
	f := &folder{path, lock}
	err = f.clean()
	if err == nil {
		_, err = lock.WriteAt([]byte(fmt.Sprintln(os.Getpid())), 0)
	}
	if err == nil {
		err = os.WriteFile(filepath.Join(path, configName), configText, 0o600)
	}
	if err != nil {
		lock.Close()
		return nil, fmt.Errorf("demo folder: %w", err)
	}
	return f, nil
}

// clean removes what a killed demo left.
func (f *folder) clean() error {
	entries, err := os.ReadDir(f.path)
	if err != nil {
		return fmt.Errorf("demo folder: %w", err)
	}
	for _, e := range entries {
		if e.Name() != lockName {
			if err := os.RemoveAll(filepath.Join(f.path, e.Name())); err != nil {
				return fmt.Errorf("demo folder: %w", err)
			}
		}
	}
	return f.lock.Truncate(0)
}

// remove deletes the folder and gives up the claim.
func (f *folder) remove() {
	os.RemoveAll(f.path)
	f.lock.Close()
}

// FindSocket returns a node of this user's running demo that answers.
func FindSocket() (node, socket string, ok bool) {
	for _, s := range sites {
		path := filepath.Join(folderPath(), s.node()+".sock")
		if admin.NewClient(path).Alive(context.Background()) {
			return s.node(), path, true
		}
	}
	return "", "", false
}

// checkFree says in one line which address of the demo something else uses.
func checkFree() error {
	var errs []error
	tcp := func(what, addr string) {
		l, err := net.Listen("tcp", addr)
		if err != nil {
			errs = append(errs, fmt.Errorf("%s %s: %w", what, addr, err))
			return
		}
		l.Close()
	}
	tcp("DNS", dnsAddress.String())
	udp := func(what, addr string) {
		c, err := net.ListenPacket("udp", addr)
		if err != nil {
			errs = append(errs, fmt.Errorf("%s %s: %w", what, addr, err))
			return
		}
		c.Close()
	}
	udp("DNS", dnsAddress.String())
	for _, s := range sites {
		tcp("VIP", s.vip().String())
		tcp("VIP", netip.AddrPortFrom(s.vip().Addr(), tcpPort).String())
		tcp("gossip", netip.AddrPortFrom(s.nodeAddr(), gossipPort).String())
		udp("gossip", netip.AddrPortFrom(s.nodeAddr(), gossipPort).String())
		tcp("BGP", netip.AddrPortFrom(s.nodeAddr(), bgpPort).String())
		tcp("router", s.router().String())
		tcp("backend", s.backend(0).String())
		tcp("backend", s.backend(1).String())
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("the demo needs these addresses, and something else uses them (another user's demo?):\n%w", err)
	}
	return nil
}

// awaitGone waits until no demo holds the folder.
func awaitGone(ctx context.Context) error {
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		if _, err := os.Stat(folderPath()); errors.Is(err, os.ErrNotExist) {
			return nil
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}
