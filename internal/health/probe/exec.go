package probe

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"time"

	"github.com/pharos-lb/pharos/internal/health"
)

// The bounds of commands.
const (
	// MaxExec is how many commands of Exec checks run at a time.
	MaxExec = 16
	// maxWaiting is how many more may wait for their turn, so that commands that
	// hang do not take the place of probes of other kinds.
	maxWaiting = 64
	// maxArgs is how many arguments a command may have, program included.
	maxArgs = 64
	// maxOutput is how much of a command's output is kept: the beginning, and as
	// much of the end. One that writes more than outputLimit is killed.
	maxOutput   = 4 << 10
	outputLimit = 1 << 20
	// neverRan is the smaller exit status that says that the command could not be
	// run (126, 127), by the custom of shells.
	neverRan = 126
)

// commandPath is where commands look for others.
const commandPath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// validateExec returns what is wrong with the command.
func (c Check) validateExec() (errs []error) {
	bad := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	command := c.Exec.Command
	if len(command) == 0 || !filepath.IsAbs(command[0]) || strings.ContainsAny(command[0], "{}") {
		bad("exec %.40q: want the absolute path of a program", command)
	}
	if len(command) > maxArgs {
		bad("exec: %d arguments, at most %d", len(command), maxArgs)
	}
	for _, arg := range command {
		if strings.ContainsRune(arg, 0) || len(arg) > maxText {
			bad("exec: argument %.40q: want at most %d bytes, none of them 0", arg, maxText)
		}
	}
	if strings.ContainsAny(c.Exec.User, "\x00:\n") || len(c.Exec.User) > 256 {
		bad("exec user %.40q: not a user", c.Exec.User)
	}
	return errs
}

// commands runs the commands of Exec checks, a bounded number at a time, each by a
// keeper.
type commands struct {
	places  chan struct{} // a place to run in
	waiting chan struct{} // a place to run or wait in
	keepers keepers
	metrics *metrics
}

// newCommands returns commands with all places free. keeper is the command line of
// a process that runs [KeeperMain].
func newCommands(m *metrics, keeper []string) *commands {
	return &commands{
		places:  make(chan struct{}, MaxExec),
		waiting: make(chan struct{}, MaxExec+maxWaiting),
		keepers: keepers{argv: keeper},
		metrics: m,
	}
}

// run runs the command of c once. It returns when the command and all that it
// started have ended, soon after ctx at the latest.
func (s *commands) run(ctx context.Context, c Check) Result {
	select {
	case s.waiting <- struct{}{}:
		defer func() { <-s.waiting }()
	default:
		return s.crowded()
	}
	select {
	case s.places <- struct{}{}:
		defer func() { <-s.places }()
	case <-ctx.Done():
		return s.crowded()
	}
	s.metrics.commands.Inc()
	defer s.metrics.commands.Dec()
	e := s.keepers.run(ctx, c)
	s.metrics.survivors.Add(float64(e.Left))
	if e.Trouble == noTime {
		return s.crowded()
	}
	return e.says(ctx, c.Timeout)
}

// close ends the keepers that wait for work. It may be called twice.
func (s *commands) close() { s.keepers.close() }

// noTime is the trouble of a command whose turn came when its time was over.
const noTime = "no time was left to run it"

// crowded is the result of a command that found no place.
func (s *commands) crowded() Result {
	s.metrics.crowded.Inc()
	return Result{Inconclusive: true, Err: fmt.Sprintf("exec: no turn in time, %d commands run already", MaxExec)}
}

// ending is how a command ended.
type ending struct {
	Trouble string `json:",omitempty"` // it could not be run
	Status  int    // exit status, -1 if a signal ended it
	Signal  string `json:",omitempty"` // which
	Overdue bool   `json:",omitempty"` // it was killed at its deadline
	Output  output
	// Left is how many processes did not end although they were killed: the kernel
	// waits for something, a disk of another machine as a rule.
	Left int `json:",omitempty"`
}

// says is what an ending means.
func (e ending) says(ctx context.Context, limit time.Duration) Result {
	last := e.Output.last()
	with := func(what string) string {
		if last != "" {
			what += ": " + last
		}
		return clip(what)
	}
	switch {
	case e.Trouble != "":
		return Result{Inconclusive: true, Err: clip("exec: cannot run: " + e.Trouble)}
	case e.Status < 0 && overdue(ctx) > tooLate:
		return Result{Inconclusive: true, Err: "exec: this node was too slow to end it in time"}
	case e.Status < 0 && (e.Overdue || errors.Is(ctx.Err(), context.DeadlineExceeded)):
		return Result{Err: with(fmt.Sprintf("timed out after %v", limit))}
	case e.Status < 0 && ctx.Err() != nil:
		return Result{Err: "cancelled"}
	case e.Output.tooLong():
		return Result{Err: fmt.Sprintf("wrote more than %d KiB", outputLimit>>10)}
	case e.Status < 0:
		return Result{Err: with("ended by signal " + e.Signal)}
	case e.Status == neverRan, e.Status == neverRan+1:
		return Result{Inconclusive: true, Code: e.Status, Err: with(fmt.Sprintf("exec: could not run, exit status %d", e.Status))}
	case e.Status > 0:
		return Result{Code: e.Status, Err: with(fmt.Sprintf("exit status %d", e.Status))}
	}
	var r Result
	r.Weight, r.HasWeight = weightLine(e.Output.first())
	return r
}

// overdue returns how long ago the deadline of ctx was; 0 if it has none.
func overdue(ctx context.Context) time.Duration {
	deadline, ok := ctx.Deadline()
	if !ok {
		return 0
	}
	return max(time.Since(deadline), 0)
}

// environment is all that a command finds in its environment.
func environment(t health.Target) []string {
	of := identity(t)
	kind := "backend"
	if t.Kind == health.KindVIP {
		kind = "vip"
	}
	return []string{
		"PATH=" + commandPath, "LANG=C.UTF-8",
		"PHAROS_ADDRESS=" + of[0], "PHAROS_HOST=" + of[1], "PHAROS_PORT=" + of[2],
		"PHAROS_SERVICE=" + of[3], "PHAROS_SITE=" + of[4], "PHAROS_KIND=" + kind,
	}
}

// output is what a command wrote, in bounded memory.
type output struct {
	Head, Tail []byte // the first maxOutput bytes, and the last of what came after
	Size       int
}

// Write takes more output. It fails when there is too much.
func (o *output) Write(p []byte) (int, error) {
	o.Size += len(p)
	if o.tooLong() {
		return 0, errors.New("too much output")
	}
	n := min(len(p), maxOutput-len(o.Head))
	o.Head = append(o.Head, p[:n]...)
	o.Tail = append(o.Tail, p[n:]...)
	if over := len(o.Tail) - maxOutput; over > 0 {
		o.Tail = append(o.Tail[:0], o.Tail[over:]...)
	}
	return len(p), nil
}

// tooLong reports whether there is more output than a check may have.
func (o *output) tooLong() bool { return o.Size > outputLimit }

// first returns the first line.
func (o *output) first() string {
	line, _, _ := bytes.Cut(o.Head, []byte("\n"))
	return string(line)
}

// last returns the last line that is not empty.
func (o *output) last() string {
	text := bytes.TrimSpace(append(o.Head[:len(o.Head):len(o.Head)], o.Tail...))
	return string(text[bytes.LastIndexByte(text, '\n')+1:])
}
