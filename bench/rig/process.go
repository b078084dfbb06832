package rig

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// The cores of a benchmark: one for what is measured, one for the load.
const (
	ServerCore = 0
	LoadCore   = 1
)

// stopTimeout is how long a program gets to end by itself.
const stopTimeout = 5 * time.Second

// A Process is one program under measurement, with all the processes that it
// starts. Its methods may be called from one goroutine.
type Process struct {
	cmd  *exec.Cmd
	log  output
	done chan struct{}
}

// AllCores is for StartOn: the program is not pinned.
const AllCores = "0-1023"

// Start runs a program in the foreground on one core. It dies with the caller.
func Start(core int, name string, args ...string) (*Process, error) {
	return StartOn(strconv.Itoa(core), name, args...)
}

// StartOn runs a program on a list of cores, as taskset(1) takes it.
func StartOn(cores, name string, args ...string) (*Process, error) {
	path, err := exec.LookPath(name)
	if err != nil {
		return nil, err
	}
	p := &Process{done: make(chan struct{})}
	p.cmd = exec.Command("taskset", append([]string{"-c", cores, path}, args...)...)
	p.cmd.Stdout, p.cmd.Stderr = &p.log, &p.log
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Setpgid: true}
	if err := p.cmd.Start(); err != nil {
		return nil, err
	}
	go func() {
		_ = p.cmd.Wait() // how it ends is not measured
		close(p.done)
	}()
	return p, nil
}

// PID returns the process that Start made.
func (p *Process) PID() int { return p.cmd.Process.Pid }

// Log returns what the program has printed so far.
func (p *Process) Log() string { return p.log.String() }

// Exited reports whether the program has ended.
func (p *Process) Exited() bool {
	select {
	case <-p.done:
		return true
	default:
		return false
	}
}

// Stop ends the program and its processes, and kills what is left of them.
func (p *Process) Stop() {
	group := -p.PID()
	_ = syscall.Kill(group, syscall.SIGTERM) // it may have ended
	select {
	case <-p.done:
	case <-time.After(stopTimeout):
	}
	for deadline := time.Now().Add(stopTimeout); syscall.Kill(group, syscall.SIGKILL) == nil && time.Now().Before(deadline); {
		time.Sleep(time.Millisecond) // usually nothing is left; else the kernel takes a moment
	}
	<-p.done
}

// tree lists the process and its descendants.
func (p *Process) tree() ([]int, error) {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil, err
	}
	children := make(map[int][]int)
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		data, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
		if err != nil {
			continue // it has ended
		}
		fields := strings.Fields(string(data[bytes.LastIndexByte(data, ')')+1:]))
		if parent, err := strconv.Atoi(fields[1]); err == nil {
			children[parent] = append(children[parent], pid)
		}
	}
	pids := []int{p.PID()}
	for i := 0; i < len(pids); i++ {
		pids = append(pids, children[pids[i]]...)
	}
	slices.Sort(pids)
	return pids, nil
}

// CPU returns the time that all processes of the program have used in user and
// system mode, to the nanosecond. What a process that has ended had used is not
// in it.
func (p *Process) CPU() (time.Duration, error) {
	if p.Exited() {
		return 0, fmt.Errorf("the program has ended:\n%s", p.Log())
	}
	pids, err := p.tree()
	if err != nil {
		return 0, err
	}
	var sum time.Duration
	for _, pid := range pids {
		const scheduler = 2 // CPUCLOCK_SCHED of linux/posix-timers.h: of the whole thread group
		var ts unix.Timespec
		switch err := unix.ClockGettime(^int32(pid)<<3|scheduler, &ts); {
		case errors.Is(err, unix.EINVAL), errors.Is(err, unix.ESRCH): // it has ended
		case err != nil:
			return 0, fmt.Errorf("read cpu time of process %d: %w", pid, err)
		default:
			sum += time.Duration(ts.Nano())
		}
	}
	return sum, nil
}

// Memory is what all processes of a program hold, in bytes. RSS counts pages
// that several share in each of them, PSS divides them.
type Memory struct{ RSS, PSS int64 }

// Memory adds up the processes (proc(5), smaps_rollup).
func (p *Process) Memory() (Memory, error) {
	pids, err := p.tree()
	if err != nil {
		return Memory{}, err
	}
	var m Memory
	for _, pid := range pids {
		data, err := os.ReadFile(fmt.Sprintf("/proc/%d/smaps_rollup", pid))
		if err != nil {
			continue // it has ended
		}
		for line := range strings.Lines(string(data)) {
			for prefix, to := range map[string]*int64{"Rss:": &m.RSS, "Pss:": &m.PSS} {
				if rest, ok := strings.CutPrefix(line, prefix); ok {
					kb, err := strconv.ParseInt(strings.Fields(rest)[0], 10, 64)
					if err != nil {
						return Memory{}, fmt.Errorf("read memory of process %d: %q", pid, line)
					}
					*to += kb << 10
				}
			}
		}
	}
	if m.RSS == 0 {
		return Memory{}, fmt.Errorf("the program has ended:\n%s", p.Log())
	}
	return m, nil
}

// Pin keeps every thread of this process on one core.
func Pin(core int) error {
	var set unix.CPUSet
	set.Set(core)
	entries, err := os.ReadDir("/proc/self/task")
	if err != nil {
		return err
	}
	for _, e := range entries {
		tid, err := strconv.Atoi(e.Name())
		if err != nil {
			return err
		}
		if err := unix.SchedSetaffinity(tid, &set); err != nil && !errors.Is(err, unix.ESRCH) {
			return fmt.Errorf("pin to core %d: %w", core, err)
		}
	}
	return nil
}

// output keeps the end of what a program prints.
type output struct {
	mu  sync.Mutex
	buf []byte
}

const keptOutput = 16 << 10

func (o *output) Write(b []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.buf = append(o.buf, b...)
	if over := len(o.buf) - keptOutput; over > keptOutput {
		o.buf = slices.Clone(o.buf[over:])
	}
	return len(b), nil
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return string(o.buf)
}
