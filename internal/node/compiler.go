package node

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"runtime/debug"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/pharos-lb/pharos/dnslb/zone"
)

// worthAProcess is how many octets of zone text are compiled by a process of their own. Less is
// done before that has begun.
const worthAProcess = 1 << 20

// A compiler makes a zone set.
type compiler func([]zone.Spec) (*zone.Set, error)

// compileZones compiles large zones in another process, at low priority: neither the
// work nor its garbage is in the process that answers queries meanwhile.
func (n *Node) compileZones(specs []zone.Spec) (*zone.Set, error) {
	size := 0
	for i := range specs {
		size += len(specs[i].Master)
	}
	if size < worthAProcess {
		return zone.Compile(specs)
	}
	argv := n.opts.Compiler
	if len(argv) == 0 {
		argv = []string{"/proc/self/exe", CompilerVerb}
	}
	set, err := compileBy(argv, compileWithin, specs)
	if errors.Is(err, errNoProcess) {
		n.log.Warn("zones are compiled here, which can hold up queries", "error", err)
		return zone.Compile(specs)
	}
	return set, err
}

// errNoProcess: it could not be started.
var errNoProcess = errors.New("start the process that compiles zones")

// maxComplaint bounds what is kept of the process's last words.
const maxComplaint = 2 << 10

// compileWithin is when a process that compiles zones is given up. A million records take it half
// a minute; one that was stopped from outside would hold every later reload.
const compileWithin = 15 * time.Minute

func compileBy(argv []string, within time.Duration, specs []zone.Spec) (*zone.Set, error) {
	ctx, cancel := context.WithTimeoutCause(context.Background(), within,
		fmt.Errorf("the process that compiles zones has not ended within %v", within))
	defer cancel()
	cmd := exec.CommandContext(ctx, argv[0], argv[1:]...)
	// It does not outlive this process. The kernel takes the end of the thread that started it for
	// the end of the process, so the thread is kept.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	in, err1 := cmd.StdinPipe()
	out, err2 := cmd.StdoutPipe()
	var complaint lastWords
	cmd.Stderr = &complaint
	err := errors.Join(err1, err2)
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errNoProcess, err)
	}
	set, err := zone.CompileBy(in, out, specs)
	in.Close()  // whoever still writes to it stops
	out.Close() // a process that has more to say ends
	ended := cmd.Wait()
	if err != nil && ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	if text := strings.TrimSpace(complaint.String()); err != nil && ended != nil {
		return nil, fmt.Errorf("the process that compiles zones ended: %w (%s)", ended, cmp.Or(text, err.Error()))
	}
	return set, err
}

// lastWords keep the first octets of what is written to them: the rest is goroutines.
type lastWords struct {
	mu  sync.Mutex
	buf []byte
}

func (t *lastWords) Write(b []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.buf = append(t.buf, b[:min(len(b), maxComplaint-len(t.buf))]...)
	return len(b), nil
}

func (t *lastWords) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return string(t.buf)
}

// CompilerMain is the process that compiles zones: it reads specs and writes a set. It gives way
// to everything else on the machine, of processors and of memory.
func CompilerMain(in, out *os.File) error {
	giveWay()
	debug.SetGCPercent(200) // twice the usual: it ends soon
	return zone.CompileFor(in, out)
}

// lastInLine is the nice value of a process that computes for long: a tenth of the usual share of a core that
// others want too, so that it still ends.
const lastInLine = 10

// giveWay makes this process the last in line. Where that is not allowed it is as good as others.
func giveWay() {
	_ = os.WriteFile("/proc/self/oom_score_adj", []byte("1000"), 0)
	for range 2 { // a thread that is made meanwhile has what its maker had
		threads, err := os.ReadDir("/proc/self/task")
		if err != nil {
			return
		}
		for _, thread := range threads {
			if id, err := strconv.Atoi(thread.Name()); err == nil {
				_ = unix.Setpriority(unix.PRIO_PROCESS, id, lastInLine)
			}
		}
	}
}
