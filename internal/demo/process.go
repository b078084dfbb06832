package demo

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"time"
)

// killAfter bounds how long a node may take to stop in order.
const killAfter = 20 * time.Second

// A process is one node: a child `pharos run`.
type process struct {
	// Immutable.
	binary, dir, name string

	mu     sync.Mutex // guards the rest
	cmd    *exec.Cmd  // nil = not running
	ended  chan struct{}
	reason string // how it last ended
}

func (p *process) socket() string { return filepath.Join(p.dir, p.name+".sock") }
func (p *process) log() string    { return filepath.Join(p.dir, p.name+".log") }

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
	cmd := exec.Command(p.binary, "run", "--config", filepath.Join(p.dir, configName), "--node", p.name,
		"--state-dir", filepath.Join(p.dir, p.name), "--socket", p.socket())
	cmd.Stdout, cmd.Stderr = logFile, logFile
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	started, ended := make(chan error, 1), make(chan struct{})
	go func() {
		runtime.LockOSThread() // never unlocked: the thread's end is the node's
		defer logFile.Close()
		err := cmd.Start()
		started <- err
		if err != nil {
			return
		}
		werr := cmd.Wait()
		p.mu.Lock()
		p.cmd, p.reason = nil, fmt.Sprint(werr)
		if werr == nil {
			p.reason = "stopped"
		}
		p.mu.Unlock()
		close(ended)
	}()
	if err := <-started; err != nil {
		return fmt.Errorf("node %s: %w", p.name, err)
	}
	p.cmd, p.ended = cmd, ended
	return nil
}

// signal sends sig and waits until the node has ended.
func (p *process) signal(sig syscall.Signal) {
	p.mu.Lock()
	cmd, ended := p.cmd, p.ended
	p.mu.Unlock()
	if cmd == nil {
		return
	}
	cmd.Process.Signal(sig) // it may have just ended, which is what we want
	select {
	case <-ended:
	case <-time.After(killAfter):
		cmd.Process.Kill() // see above
		<-ended
	}
}

// pid returns the process id and true while the node runs.
func (p *process) pid() (int, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.cmd == nil {
		return 0, false
	}
	return p.cmd.Process.Pid, true
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
