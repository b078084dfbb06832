package node

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/pharos-lb/pharos/internal/health"
)

// stateDir is what survives a restart: the epoch of this node's reports and
// the last known good verdicts. Losing it costs a slower start, nothing else.
type stateDir struct {
	path string
	log  *slog.Logger
	lock *os.File
}

// Names of the files in the state folder.
const (
	lockFile  = "lock"
	epochFile = "epoch"
	viewFile  = "last-known-good"
	maxEpoch  = 1 << 62 // above it there would be no room to go on
)

// openState makes and locks the folder. Two nodes in one folder would speak
// with one epoch, so the second is refused.
func openState(path string, log *slog.Logger) (*stateDir, error) {
	if err := os.MkdirAll(path, 0o750); err != nil {
		return nil, fmt.Errorf("state folder: %w (name a writable one with --state-dir)", err)
	}
	lock, err := os.OpenFile(filepath.Join(path, lockFile), os.O_CREATE|os.O_RDWR, 0o640)
	if err != nil {
		return nil, fmt.Errorf("state folder: %w (name a writable one with --state-dir)", err)
	}
	if err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		lock.Close()
		return nil, fmt.Errorf("state folder %s: another pharos uses it; stop it, or give this one its own with --state-dir", path)
	}
	return &stateDir{path: path, log: log, lock: lock}, nil
}

func (s *stateDir) close() { s.lock.Close() }

// nextEpoch returns an epoch above every one used before and makes it durable
// before returning. now is the floor, so that a wiped folder still moves ahead.
func (s *stateDir) nextEpoch(now time.Time) (uint64, error) {
	epoch := uint64(max(now.Unix(), 1))
	data, err := os.ReadFile(filepath.Join(s.path, epochFile))
	switch {
	case errors.Is(err, fs.ErrNotExist):
	case err != nil:
		return 0, fmt.Errorf("read epoch: %w", err)
	default:
		if last, err := strconv.ParseUint(strings.TrimSpace(string(data)), 10, 64); err != nil || last >= maxEpoch {
			s.log.Warn("epoch file is corrupt, starting from the clock", "file", epochFile)
		} else {
			epoch = max(epoch, last+1)
		}
	}
	return epoch, s.saveEpoch(epoch)
}

func (s *stateDir) saveEpoch(epoch uint64) error {
	return s.replace(epochFile, []byte(strconv.FormatUint(epoch, 10)+"\n"))
}

// loadView returns the last known good verdicts, nil if there are none.
func (s *stateDir) loadView() []byte {
	name := filepath.Join(s.path, viewFile)
	info, err := os.Stat(name)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		s.log.Warn("cannot read the last known good verdicts", "error", err)
		return nil
	case info.Size() > health.MaxViewLen:
		s.setAside(viewFile, fmt.Errorf("%d bytes, at most %d", info.Size(), health.MaxViewLen))
		return nil
	}
	data, err := os.ReadFile(name)
	if err != nil {
		s.log.Warn("cannot read the last known good verdicts", "error", err)
		return nil
	}
	return data
}

// setAside keeps a corrupt file for a post-mortem and out of the way.
func (s *stateDir) setAside(name string, cause error) {
	from := filepath.Join(s.path, name)
	s.log.Warn("state file is corrupt, set aside", "file", from, "cause", cause)
	if err := os.Rename(from, from+".corrupt"); err != nil {
		s.log.Warn("cannot set a corrupt state file aside", "error", err)
	}
}

// replace writes a file so that a crash leaves either the old or the new one.
func (s *stateDir) replace(name string, data []byte) error {
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

// saver writes the newest verdicts in the background, so that a slow disk
// never delays a decision. Older ones that were not yet written are dropped.
type saver struct {
	state *stateDir
	next  chan []byte // capacity 1
}

func newSaver(state *stateDir) *saver { return &saver{state: state, next: make(chan []byte, 1)} }

func (s *saver) put(data []byte) {
	for {
		select {
		case s.next <- data:
			return
		default:
		}
		select {
		case <-s.next:
		default:
		}
	}
}

func (s *saver) Run(ctx context.Context) error {
	save := func(data []byte) {
		if err := s.state.replace(viewFile, data); err != nil {
			s.state.log.Warn("cannot save the last known good verdicts", "error", err)
		}
	}
	for {
		select {
		case data := <-s.next:
			save(data)
		case <-ctx.Done():
			select {
			case data := <-s.next:
				save(data)
			default:
			}
			return nil
		}
	}
}
