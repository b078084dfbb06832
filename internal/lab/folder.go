package lab

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Names in a lab's folder.
const (
	lockName    = "lock"
	controlName = "control.sock"
	folderStart = "pharos-lab-"
)

// folderPath is where a lab keeps its sockets, logs and disks.
func folderPath(id string) string { return filepath.Join(os.TempDir(), folderStart+id) }

// A folder is one lab's, locked while the lab runs. It is made before anything
// else of the lab and removed after it, so that leftovers are always found.
type folder struct {
	id, path string
	lock     *os.File
}

// errBusy: the lab runs.
var errBusy = errors.New("it is running")

// claim makes the folder, and cleans up what a killed lab of this name left.
func claim(id string) (*folder, error) {
	f := &folder{id: id, path: folderPath(id)}
	if err := os.Mkdir(f.path, 0o700); err != nil && !errors.Is(err, os.ErrExist) {
		return nil, fmt.Errorf("lab folder: %w", err)
	}
	info, err := os.Lstat(f.path)
	if err != nil {
		return nil, fmt.Errorf("lab folder: %w", err)
	}
	if st, ok := info.Sys().(*syscall.Stat_t); !info.IsDir() || !ok || int(st.Uid) != os.Getuid() {
		return nil, fmt.Errorf("lab folder %s: it belongs to somebody else; choose another --name", f.path)
	}
	if f.lock, err = os.OpenFile(filepath.Join(f.path, lockName), os.O_CREATE|os.O_RDWR|syscall.O_NOFOLLOW, 0o600); err != nil {
		return nil, fmt.Errorf("lab folder: %w", err)
	}
	if err := syscall.Flock(int(f.lock.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		f.lock.Close()
		return nil, fmt.Errorf("lab %s: %w; see it with `pharos lab status --name %s`, end it with `pharos lab down --name %s`", id, errBusy, id, id)
	}
	if err := f.sweep(); err != nil {
		f.lock.Close()
		return nil, err
	}
	return f, nil
}

// sweep removes everything of the lab but the folder and its lock.
func (f *folder) sweep() error {
	names, err := leftoverNamespaces(f.id)
	if err != nil {
		return fmt.Errorf("clean lab %s: %w", f.id, err)
	}
	errs := []error{killInside(names)}
	for _, name := range names {
		errs = append(errs, removeNamespace(name))
	}
	errs = append(errs, f.unmount())
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("clean lab %s: %w", f.id, err) // with a disk still mounted nothing is deleted
	}
	entries, err := os.ReadDir(f.path)
	if err != nil {
		return fmt.Errorf("clean lab %s: %w", f.id, err)
	}
	for _, e := range entries {
		if e.Name() != lockName {
			errs = append(errs, os.RemoveAll(filepath.Join(f.path, e.Name())))
		}
	}
	beside, err := filepath.Glob(f.path + "-*") // of its routers, which are other users
	if err != nil {
		return err
	}
	for _, path := range beside {
		errs = append(errs, os.RemoveAll(path))
	}
	return errors.Join(errs...)
}

// unmount takes the nodes' disks away.
func (f *folder) unmount() error {
	mounts, err := mountsBelow(f.path)
	if err != nil {
		return err
	}
	var errs []error
	for _, path := range mounts {
		if err := unix.Unmount(path, unix.MNT_DETACH); err != nil {
			errs = append(errs, fmt.Errorf("unmount %s: %w", path, err))
		}
	}
	return errors.Join(errs...)
}

// remove deletes the folder and gives up the claim.
func (f *folder) remove() error {
	err := f.sweep()
	if err == nil {
		err = os.RemoveAll(f.path)
	}
	f.lock.Close()
	return err
}

// mountsBelow lists the mount points in a folder, innermost first.
func mountsBelow(dir string) ([]string, error) {
	file, err := os.Open("/proc/self/mountinfo")
	if err != nil {
		return nil, err
	}
	defer file.Close()
	var out []string
	lines := bufio.NewScanner(file)
	for lines.Scan() {
		fields := strings.Fields(lines.Text())
		if len(fields) > 4 && strings.HasPrefix(fields[4], dir+"/") {
			out = append(out, fields[4])
		}
	}
	slices.Reverse(out)
	return out, lines.Err()
}

// goneWithin bounds how long killed processes may take to go.
const goneWithin = 5 * time.Second

// killInside kills every process that is in one of the named namespaces, which
// are the lab's own, and waits until none is left.
func killInside(names []string) error {
	inside := map[uint64]bool{}
	for _, name := range names {
		var st unix.Stat_t
		if err := unix.Stat(filepath.Join(namespaceFolder, name), &st); err == nil {
			inside[st.Ino] = true
		}
	}
	var host unix.Stat_t
	if err := unix.Stat("/proc/self/ns/net", &host); err != nil {
		return err
	}
	delete(inside, host.Ino) // never: a name that stands for our own namespace is not the lab's
	deadline := time.Now().Add(goneWithin)
	for {
		left := 0
		pids, err := filepath.Glob("/proc/[0-9]*/ns/net")
		if err != nil {
			return err
		}
		for _, path := range pids {
			var st unix.Stat_t
			if unix.Stat(path, &st) != nil || !inside[st.Ino] {
				continue
			}
			if pid, err := strconv.Atoi(strings.Split(path, "/")[2]); err == nil && pid != os.Getpid() {
				left++
				syscall.Kill(pid, syscall.SIGKILL) // it may be gone by now
			}
		}
		if left == 0 {
			return nil
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("%d processes in the lab's namespaces do not end", left)
		}
		time.Sleep(20 * time.Millisecond) // another parent's child cannot be waited for
	}
}

// Clean removes what killed labs left: that of id, or with "" all. It returns
// the labs that it removed. A running lab is an error if it was named, and left
// alone otherwise.
func Clean(id string) (removed []string, err error) {
	if id != "" && !labID.MatchString(id) {
		return nil, fmt.Errorf("lab name %q: want 1 to 12 lower case letters and digits", id)
	}
	ids, err := labs()
	if err != nil {
		return nil, err
	}
	var errs []error
	for _, found := range ids {
		if id != "" && found != id {
			continue
		}
		f, err := claim(found)
		if errors.Is(err, errBusy) && id == "" {
			continue
		}
		if err == nil {
			err = f.remove()
		}
		if err == nil {
			removed = append(removed, found)
		}
		errs = append(errs, err)
	}
	return removed, errors.Join(errs...)
}

// labs are the names of the labs that have a folder.
func labs() ([]string, error) {
	entries, err := os.ReadDir(os.TempDir())
	if err != nil {
		return nil, err
	}
	var ids []string
	for _, e := range entries {
		if id, ok := strings.CutPrefix(e.Name(), folderStart); ok && labID.MatchString(id) && e.IsDir() {
			ids = append(ids, id)
		}
	}
	return ids, nil
}
