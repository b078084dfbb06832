package accesslog

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

const (
	// maxBuffer is how many bytes wait to be written; lines beyond that are dropped.
	maxBuffer = 4 << 20
	// writeAt is how many bytes make the writer wake at once, and writeEvery how long
	// fewer may wait.
	writeAt    = 64 << 10
	writeEvery = 200 * time.Millisecond
)

// A Log is one file. Any number of goroutines may append to it.
type Log struct {
	// Immutable.
	name string // "-" is the standard output
	log  *slog.Logger
	wake chan struct{}

	reopen  atomic.Bool
	dropped atomic.Uint64
	lines   atomic.Uint64
	failed  atomic.Uint64

	mu      sync.Mutex // guards waiting
	waiting []byte

	// Owned by Run.
	file  *os.File
	spare []byte
	ill   bool // the last write failed
}

// Open opens a file for appending, made if need be; "-" is the standard output. A named pipe that nobody reads from is an
// error. Log takes failures; nil = none.
func Open(name string, log *slog.Logger) (*Log, error) {
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	l := &Log{name: name, log: log, wake: make(chan struct{}, 1)}
	var err error
	l.file, err = l.open()
	return l, err
}

func (l *Log) open() (*os.File, error) {
	if l.name == "-" {
		return os.Stdout, nil
	}
	flags := os.O_WRONLY | os.O_CREATE | os.O_APPEND
	if info, err := os.Stat(l.name); err == nil && info.Mode()&os.ModeNamedPipe != 0 {
		flags |= syscall.O_NONBLOCK // or it would wait for somebody to read
	}
	f, err := os.OpenFile(l.name, flags, 0o640)
	switch {
	case errors.Is(err, syscall.ENXIO):
		return nil, fmt.Errorf("access log: nobody reads from the named pipe %s", l.name)
	case err != nil:
		return nil, fmt.Errorf("access log: %w", err)
	}
	return f, nil
}

// Name returns what was opened.
func (l *Log) Name() string { return l.name }

// Append adds a line. It never waits for the disk.
func (l *Log) Append(f Format, e *Entry) {
	l.mu.Lock()
	if len(l.waiting) >= maxBuffer {
		l.mu.Unlock()
		l.dropped.Add(1)
		return
	}
	before := len(l.waiting)
	l.waiting = append(appendEntry(l.waiting, f, e), '\n')
	after := len(l.waiting)
	l.mu.Unlock()
	l.lines.Add(1)
	if before < writeAt && after >= writeAt {
		select {
		case l.wake <- struct{}{}:
		default:
		}
	}
}

// Reopen makes the writer open the file by its name again before it writes on.
func (l *Log) Reopen() { l.reopen.Store(true) }

// Stats counts lines taken, lines dropped because too much waited, and failures to write
// or to open.
func (l *Log) Stats() (lines, dropped, failed uint64) {
	return l.lines.Load(), l.dropped.Load(), l.failed.Load()
}

// Run writes until ctx ends and everything is written, and closes the file.
func (l *Log) Run(ctx context.Context) {
	ticker := time.NewTicker(writeEvery)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			l.write()
			l.Close()
			return
		case <-ticker.C:
		case <-l.wake:
		}
		l.write()
	}
}

// Close closes the file of a Log that does not run.
func (l *Log) Close() {
	if l.file != nil && l.file != os.Stdout {
		_ = l.file.Close()
	}
	l.file = nil
}

// write writes what waits.
func (l *Log) write() {
	if l.reopen.Swap(false) && l.name != "-" {
		if f, err := l.open(); err != nil {
			l.fail(err) // the old file goes on
		} else {
			l.Close()
			l.file = f
		}
	}
	l.mu.Lock()
	out := l.waiting
	l.waiting = l.spare[:0]
	l.mu.Unlock()
	if len(out) > 0 {
		if _, err := l.file.Write(out); err != nil {
			l.fail(err)
		} else {
			l.ill = false
		}
	}
	l.spare = nil
	if cap(out) <= 2*writeAt {
		l.spare = out
	}
}

// fail counts a failure, and says so once until one succeeds.
func (l *Log) fail(err error) {
	l.failed.Add(1)
	if !l.ill {
		l.log.Error("access log cannot be written", "file", l.name, "error", err)
	}
	l.ill = true
}
