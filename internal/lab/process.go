package lab

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// endWithin bounds how long a node may take to stop in order.
const endWithin = 20 * time.Second

// diskSize is how much a node's state folder holds. The state of the largest
// configuration fits; a full one is full at once.
const diskSize = "size=16m"

// ballast is the file that fills a node's disk.
const ballast = "ballast"

// A process is one node: a child `pharos run` in its namespace.
type process struct {
	// Immutable.
	name   string
	space  *namespace
	dir    string // the lab's folder
	logs   string // where the log goes; "" = dir
	binary string
	config string
	env    []string

	mu     sync.Mutex // guards the rest
	cmd    *exec.Cmd  // nil = not running
	ended  chan struct{}
	ending bool // it was asked to
	frozen bool
	offset time.Duration // of its clock
	starts int
	// crashes are ends that nobody asked for.
	crashes []string
}

// maxCrashes bounds process.crashes.
const maxCrashes = 10

func (p *process) socket() string { return filepath.Join(p.dir, p.name+".sock") }
func (p *process) state() string  { return filepath.Join(p.dir, "state", p.name) }

func (p *process) log() string {
	dir := p.logs
	if dir == "" {
		dir = p.dir
	}
	return filepath.Join(dir, p.name+".log")
}

// mount gives the node a disk of its own that can be filled.
func (p *process) mount() error {
	if err := os.MkdirAll(p.state(), 0o750); err != nil {
		return fmt.Errorf("node %s: %w", p.name, err)
	}
	if err := unix.Mount("pharos-lab", p.state(), "tmpfs", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, diskSize); err != nil {
		return fmt.Errorf("node %s: mount its disk: %w", p.name, err)
	}
	return nil
}

// start runs the node; one that runs is left alone. The node dies with this
// process: the kernel kills it when the thread that started it ends
// (PR_SET_PDEATHSIG), so that thread is kept for as long as the node lives.
func (p *process) start() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.cmd != nil {
		return nil
	}
	logFile, err := os.OpenFile(p.log(), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return fmt.Errorf("node %s: %w", p.name, err)
	}
	cmd := exec.Command(p.binary, "run", "--config", p.config, "--node", p.name, "--state-dir", p.state(), "--socket", p.socket())
	cmd.Env = p.env
	cmd.Stdout, cmd.Stderr = logFile, logFile
	// A node whose clock is off is stopped at its first instruction, to set the clock.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL, Ptrace: p.offset != 0}
	started, ended := make(chan error, 1), make(chan struct{})
	offset := p.offset
	startThread(func() { // the thread's end is the node's
		defer logFile.Close()
		err := p.space.enter()
		if err == nil {
			err = cmd.Start()
		}
		if err == nil && offset != 0 {
			err = startShifted(cmd.Process.Pid, offset)
			if err != nil {
				cmd.Process.Kill()
				cmd.Wait() // it never ran
			}
		}
		started <- err
		if err != nil {
			return
		}
		werr := cmd.Wait()
		p.mu.Lock()
		if !p.ending && len(p.crashes) < maxCrashes {
			p.crashes = append(p.crashes, fmt.Sprintf("node %s ended by itself (%v): %s", p.name, werr, p.complaint()))
		}
		p.cmd, p.frozen = nil, false
		p.mu.Unlock()
		close(ended)
	})
	if err := <-started; err != nil {
		return fmt.Errorf("node %s: %w", p.name, err)
	}
	p.cmd, p.ended, p.frozen, p.ending = cmd, ended, false, false
	p.starts++
	return nil
}

// end sends sig and waits until the node has ended.
func (p *process) end(sig syscall.Signal) {
	p.mu.Lock()
	cmd, ended, frozen := p.cmd, p.ended, p.frozen
	p.ending = true
	p.mu.Unlock()
	if cmd == nil {
		return
	}
	cmd.Process.Signal(sig) // it may have just ended, which is what we want
	if frozen {
		cmd.Process.Signal(syscall.SIGCONT) // a stopped process does not heed the other
	}
	select {
	case <-ended:
	case <-time.After(endWithin):
		cmd.Process.Kill() // see above
		<-ended
	}
}

// freeze stops the node and its children, or lets them go on.
func (p *process) freeze(frozen bool) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.cmd == nil {
		return fmt.Errorf("node %s is not running", p.name)
	}
	sig := syscall.SIGCONT
	if frozen {
		sig = syscall.SIGSTOP
	}
	if err := p.cmd.Process.Signal(sig); err != nil {
		return fmt.Errorf("node %s: %w", p.name, err)
	}
	p.frozen = frozen
	return nil
}

// wipe kills the node and empties its disk.
func (p *process) wipe() error {
	p.end(syscall.SIGKILL)
	entries, err := os.ReadDir(p.state())
	if err != nil {
		return fmt.Errorf("node %s: %w", p.name, err)
	}
	var errs []error
	for _, e := range entries {
		errs = append(errs, os.RemoveAll(filepath.Join(p.state(), e.Name())))
	}
	return errors.Join(errs...)
}

// fill leaves no byte free on the node's disk.
func (p *process) fill() error {
	f, err := os.OpenFile(filepath.Join(p.state(), ballast), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return fmt.Errorf("node %s: %w", p.name, err)
	}
	defer f.Close()
	block := make([]byte, 64<<10)
	for len(block) > 0 {
		if _, err := f.Write(block); errors.Is(err, unix.ENOSPC) {
			block = block[:len(block)/2] // the rest is smaller
		} else if err != nil {
			return fmt.Errorf("node %s: fill its disk: %w", p.name, err)
		}
	}
	return nil
}

// free takes the ballast away.
func (p *process) free() error {
	if err := os.Remove(filepath.Join(p.state(), ballast)); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("node %s: %w", p.name, err)
	}
	return nil
}

// full reports whether fill was the last word.
func (p *process) full() bool {
	_, err := os.Stat(filepath.Join(p.state(), ballast))
	return err == nil
}

// clock sets how far the node's wall clock is off, now and after each start.
func (p *process) clock(offset time.Duration) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !canShift {
		return fmt.Errorf("node %s: %w", p.name, errNoShift)
	}
	if p.cmd != nil {
		if err := shiftClock(p.cmd.Process.Pid, offset, p.frozen); err != nil {
			return fmt.Errorf("node %s: %w", p.name, err)
		}
	}
	p.offset = offset
	return nil
}

// takeCrashes returns the ends that nobody asked for, once.
func (p *process) takeCrashes() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	out := p.crashes
	p.crashes = nil
	return out
}

// A condition is how a node's process is.
type condition struct {
	pid    int // 0 = not running
	frozen bool
	offset time.Duration
	starts int
}

func (p *process) condition() condition {
	p.mu.Lock()
	defer p.mu.Unlock()
	c := condition{frozen: p.frozen, offset: p.offset, starts: p.starts}
	if p.cmd != nil {
		c.pid = p.cmd.Process.Pid
	}
	return c
}

// lives reports whether the node runs and is not stopped.
func (p *process) lives() bool {
	c := p.condition()
	return c.pid != 0 && !c.frozen
}

// complaint is the last thing the node said, for when it ends by itself.
func (p *process) complaint() string {
	data, err := os.ReadFile(p.log())
	if err != nil {
		return ""
	}
	lines := strings.Split(strings.TrimSpace(string(data)), "\n")
	return lines[len(lines)-1]
}
