package l7

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"time"

	"github.com/pharos-lb/pharos/forward"
	"github.com/pharos-lb/pharos/forward/l7/accesslog"
)

// An AccessLog says where and how a listener's requests are written down.
type AccessLog struct {
	// File is appended to; "-" is the standard output.
	File   string
	Format accesslog.Format
	// Sample is the share of requests that is written, above 0 … 1; 0 means all. Answers of
	// 500 and more are always written.
	Sample float64
	// Query writes queries, of the request and of its Referer.
	Query bool
}

// An accessLog is one that has been opened.
type accessLog struct {
	*accesslog.Log
	format accesslog.Format
	sample float64
	query  bool
}

// logLinger is how long a log that no listener uses any more takes lines of requests that
// began before.
const logLinger = 10 * time.Second

// logFarewell is how long a stop waits for what waits to be written. A pipe whose reader has stalled would hold it for ever.
const logFarewell = 2 * time.Second

// logs are the open access logs, by file.
type logs struct {
	log *slog.Logger

	mu      sync.Mutex // guards the rest
	open    map[string]*openLog
	ctx     context.Context // while running
	writers sync.WaitGroup
}

type openLog struct {
	*accesslog.Log
	stop context.CancelFunc // nil until it runs
}

// get opens a log, unless it is open.
func (l *logs) get(a *AccessLog) (*accessLog, error) {
	if a == nil {
		return nil, nil
	}
	if a.Sample < 0 || a.Sample > 1 || a.Format > accesslog.Combined || a.File == "" {
		return nil, errors.New("access log: needs a file, a format, and a sample of 0 … 1")
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	have := l.open[a.File]
	if have == nil {
		opened, err := accesslog.Open(a.File, l.log)
		if err != nil {
			return nil, err
		}
		if l.open == nil {
			l.open = make(map[string]*openLog)
		}
		have = &openLog{Log: opened}
		l.open[a.File] = have
	}
	sample := a.Sample
	if sample == 0 {
		sample = 1
	}
	return &accessLog{Log: have.Log, format: a.Format, sample: sample, query: a.Query}, nil
}

// start makes the logs write, those that are opened later too, until stop. What stop cannot have written in time is lost.
func (l *logs) start() (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	l.mu.Lock()
	defer l.mu.Unlock()
	l.ctx = ctx
	for _, o := range l.open {
		l.runLocked(o)
	}
	return func() {
		cancel()
		written := make(chan struct{})
		go func() {
			defer close(written)
			l.writers.Wait()
		}()
		timer := time.NewTimer(logFarewell)
		defer timer.Stop()
		select {
		case <-written:
		case <-timer.C:
			l.log.Error("an access log takes nothing: its last lines are lost", "waited", logFarewell)
		}
	}
}

func (l *logs) runLocked(o *openLog) {
	if o.stop != nil || l.ctx == nil || l.ctx.Err() != nil {
		return
	}
	ctx, cancel := context.WithCancel(l.ctx)
	o.stop = cancel
	l.writers.Go(func() { o.Run(ctx) })
}

// keep runs the logs of listeners, and closes the others.
func (l *logs) keep(listens []forward.Listen[settings]) {
	used := make(map[*accesslog.Log]bool)
	for i := range listens {
		if have := listens[i].Settings.log; have != nil {
			used[have.Log] = true
		}
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	for name, o := range l.open {
		switch {
		case used[o.Log]:
			l.runLocked(o)
			continue
		case o.stop != nil:
			time.AfterFunc(logLinger, o.stop)
		default:
			o.Close()
		}
		delete(l.open, name)
	}
}

// reopen makes every log open its file anew.
func (l *logs) reopen() {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, o := range l.open {
		o.Reopen()
	}
}

// closeIdle closes the files of logs that never ran.
func (l *logs) closeIdle() {
	l.mu.Lock()
	defer l.mu.Unlock()
	for name, o := range l.open {
		if o.stop == nil {
			o.Close()
			delete(l.open, name)
		}
	}
}

// stats adds up what the open logs have counted.
func (l *logs) stats() (lines, dropped, failed uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, o := range l.open {
		a, b, c := o.Stats()
		lines, dropped, failed = lines+a, dropped+b, failed+c
	}
	return lines, dropped, failed
}
