package node

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/pharos-lb/pharos/internal/health"
)

// stateDir is what survives a restart: the epoch of this node's reports, the
// last known good verdicts, how far each observer has come, and the overrides.
// Losing it costs a slower start, nothing else: the others remember the rest. A
// disk that is full or read-only is reported and stops nothing.
type stateDir struct {
	path string
	log  *slog.Logger

	damaged atomic.Int64 // files set aside
	frozen  atomic.Bool  // another process writes here now

	saving sync.Mutex // guards what follows, and writing the epoch
	lock   *os.File   // nil when the disk refused it
	epoch  uint64     // the newest, whether the disk took it or not

	writing sync.Mutex // held while a file is replaced

	mu       sync.Mutex // guards troubles
	troubles map[string]error
}

// Names of the files in the state folder.
const (
	lockFile      = "lock"
	epochFile     = "epoch"
	viewFile      = "last-known-good"
	registersFile = "observers"
	overridesFile = "overrides"
	maxEpoch      = 1 << 62 // above it there would be no room to go on
)

// maxStateFile is the largest state file that is read, in bytes.
const maxStateFile = health.MaxViewLen

// badDisk reports whether an error is the disk's fault, not the operator's: a
// node whose disk fails goes on without one.
func badDisk(err error) bool {
	return errors.Is(err, syscall.EROFS) || errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) || errors.Is(err, syscall.EIO)
}

// note keeps what is wrong with a file, nil for nothing, and logs what is new.
func (s *stateDir) note(name string, err error) {
	s.mu.Lock()
	was := s.troubles[name]
	if err == nil {
		delete(s.troubles, name)
	} else {
		s.troubles[name] = err
	}
	s.mu.Unlock()
	switch {
	case err != nil && was == nil:
		s.log.Warn("state cannot be saved; this node goes on without", "file", name, "error", err)
	case err == nil && was != nil:
		s.log.Info("state can be saved again", "file", name)
	}
}

// trouble returns what is wrong with the folder, nil if nothing is.
func (s *stateDir) trouble() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	var errs []error
	for _, name := range slices.Sorted(maps.Keys(s.troubles)) {
		errs = append(errs, s.troubles[name])
	}
	return errors.Join(errs...)
}

// refused returns how many of its files the disk did not take.
func (s *stateDir) refused() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.troubles)
}

// openState makes and locks the folder. Two nodes in one folder would speak
// with one epoch, so the second is refused.
func openState(path string, lock *os.File, log *slog.Logger) (*stateDir, error) {
	s := &stateDir{path: path, log: log, troubles: map[string]error{}}
	if lock != nil { // of the process that this one replaces, shared with it
		s.lock = lock
		return s, nil
	}
	err := s.takeLock()
	switch {
	case badDisk(err):
		s.note(lockFile, err)
	case err != nil:
		return nil, err
	}
	return s, nil
}

func (s *stateDir) takeLock() error {
	err := os.MkdirAll(s.path, 0o750)
	var lock *os.File
	if err == nil {
		lock, err = os.OpenFile(filepath.Join(s.path, lockFile), os.O_CREATE|os.O_RDWR, 0o640)
	}
	if err != nil {
		return fmt.Errorf("state folder: %w (name a writable one with --state-dir)", err)
	}
	if err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		lock.Close()
		return fmt.Errorf("state folder %s: another pharos uses it; stop it, or give this one its own with --state-dir", s.path)
	}
	s.lock = lock
	return nil
}

// catchUp makes good what the disk refused: it has just taken something.
func (s *stateDir) catchUp() {
	s.saving.Lock()
	defer s.saving.Unlock()
	if s.lock == nil {
		s.note(lockFile, s.takeLock())
	}
	s.mu.Lock()
	missing := s.troubles[epochFile] != nil
	s.mu.Unlock()
	if missing {
		s.writeEpoch()
	}
}

// errFrozen is why nothing is written while another process does.
var errFrozen = errors.New("another process has the state folder now")

// freeze ends all writing until thaw; what is being written comes to its end first.
func (s *stateDir) freeze() {
	s.writing.Lock()
	defer s.writing.Unlock()
	s.frozen.Store(true)
}

// thaw ends freeze.
func (s *stateDir) thaw() { s.frozen.Store(false) }

// lockFD returns the descriptor of the lock; ok is false if the disk refused it.
func (s *stateDir) lockFD() (fd int, ok bool) {
	s.saving.Lock()
	defer s.saving.Unlock()
	if s.lock == nil {
		return -1, false
	}
	return int(s.lock.Fd()), true
}

func (s *stateDir) close() {
	s.saving.Lock()
	defer s.saving.Unlock()
	if s.lock != nil {
		s.lock.Close()
	}
}

// nextEpoch returns an epoch above every one used before and makes it durable
// before returning, if the disk lets it. now is the floor, so that a wiped
// folder still moves ahead.
func (s *stateDir) nextEpoch(now time.Time) uint64 {
	epoch := uint64(max(now.Unix(), 1))
	if data := s.load(epochFile); data != nil {
		if last, err := parseEpoch(data); err != nil {
			s.setAside(epochFile, err) // the clock, and what the others remember, must do
		} else {
			epoch = max(epoch, last+1)
		}
	}
	s.saveEpoch(epoch)
	return epoch
}

// parseEpoch reads what writeEpoch wrote. A number that was cut off would be one,
// too: it ends with a line feed.
func parseEpoch(data []byte) (uint64, error) {
	text, whole := strings.CutSuffix(string(data), "\n")
	if !whole {
		return 0, errors.New("cut off")
	}
	epoch, err := strconv.ParseUint(text, 10, 64)
	if err == nil && epoch >= maxEpoch {
		err = errors.New("there is no room to go on above it")
	}
	return epoch, err
}

func (s *stateDir) saveEpoch(epoch uint64) {
	s.saving.Lock()
	defer s.saving.Unlock()
	s.epoch = epoch
	s.writeEpoch()
}

// writeEpoch is called with saving held.
func (s *stateDir) writeEpoch() {
	s.note(epochFile, s.replace(epochFile, []byte(strconv.FormatUint(s.epoch, 10)+"\n")))
}

// load returns a file's content, nil if there is none that can be read. One that
// is there and cannot be read is set aside: what is saved next would destroy it.
func (s *stateDir) load(name string) []byte {
	path := filepath.Join(s.path, name)
	info, err := os.Stat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err == nil && info.Size() > maxStateFile:
		s.setAside(name, fmt.Errorf("%d bytes, at most %d", info.Size(), maxStateFile))
		return nil
	}
	data, err := os.ReadFile(path)
	if err != nil {
		s.setAside(name, err)
		return nil
	}
	return data
}

// restoreView returns the last known good verdicts, nil if there are none.
func (s *stateDir) restoreView(layout *health.Layout, now time.Time) *health.View {
	data := s.load(viewFile)
	if data == nil {
		return nil
	}
	view, err := health.RestoreView(data, layout, now)
	if err != nil {
		s.setAside(viewFile, err)
		return nil
	}
	return view
}

// restoreOverrides returns the overrides that were in force, and the cleared ones.
func (s *stateDir) restoreOverrides() []health.Override {
	data := s.load(overridesFile)
	if data == nil {
		return nil
	}
	all, err := health.ParseOverrides(data)
	if err != nil {
		s.setAside(overridesFile, err)
		return nil
	}
	return all
}

// restoreRegisters returns how far each observer had come.
func (s *stateDir) restoreRegisters() []health.Register {
	data := s.load(registersFile)
	if data == nil {
		return nil
	}
	all, err := health.RestoreRegisters(data)
	if err != nil {
		s.setAside(registersFile, err)
		return nil
	}
	return all
}

// setAside keeps a file that cannot be trusted for a post-mortem and out of the way.
func (s *stateDir) setAside(name string, cause error) {
	s.damaged.Add(1)
	from := filepath.Join(s.path, name)
	s.log.Warn("state file is corrupt, set aside; this node starts without", "file", from, "cause", cause)
	if err := os.Rename(from, from+".corrupt"); err != nil {
		s.log.Warn("cannot set a corrupt state file aside", "error", err)
	}
}

// replace writes a file so that a crash leaves either the old or the new one.
func (s *stateDir) replace(name string, data []byte) error {
	s.writing.Lock()
	defer s.writing.Unlock()
	if s.frozen.Load() {
		return errFrozen
	}
	tmp, err := os.CreateTemp(s.path, name+".*")
	if err != nil {
		return fmt.Errorf("save %s: %w", name, err)
	}
	_, err = tmp.Write(data)
	err = errors.Join(err, tmp.Sync(), tmp.Close())
	if err == nil {
		err = os.Rename(tmp.Name(), filepath.Join(s.path, name))
	}
	if err != nil {
		os.Remove(tmp.Name())
		return fmt.Errorf("save %s: %w", name, err)
	}
	return s.syncDir()
}

// syncDir makes a rename durable.
func (s *stateDir) syncDir() error {
	dir, err := os.Open(s.path)
	if err != nil {
		return fmt.Errorf("sync state folder: %w", err)
	}
	return errors.Join(dir.Sync(), dir.Close())
}
