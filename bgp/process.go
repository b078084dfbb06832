package bgp

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"sync"
	"time"
)

// Limits of the child's log in the parent.
const (
	maxLogLine  = 16 << 10 // bytes; longer lines end the reading of a line there
	maxRawLines = 100      // lines of a crash that are logged, per child
)

// A process is one running child: its pipes and its end.
type process struct {
	// Immutable.
	pid     int
	kill    func()
	orders  *os.File // to its stdin
	reports *os.File // from its stdout
	errs    *os.File // from its stderr
	exited  chan struct{}
	left    chan struct{} // of an adopted one: closed when it is handed on; else nil

	reportsGate, errsGate *gate // reports and errs as they are read

	exit error // of Wait; readable after exited is closed

	mu      sync.Mutex // guards the rest
	last    string     // last error that it logged, or the first line of its crash
	raw     int        // lines logged that were not ours
	autopsy autopsy
}

// startProcess starts a child. The caller must call end.
func startProcess(command, env []string) (*process, error) {
	var files [6]*os.File
	closeAll := func() {
		for _, f := range files {
			if f != nil {
				_ = f.Close()
			}
		}
	}
	for i := 0; i < len(files); i += 2 {
		r, w, err := os.Pipe()
		if err != nil {
			closeAll()
			return nil, fmt.Errorf("make pipe: %w", err)
		}
		files[i], files[i+1] = r, w
	}
	cmd := exec.Command(command[0], command[1:]...)
	cmd.Env = childEnvironment(env)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = files[0], files[3], files[5]
	cmd.SysProcAttr = childAttributes()
	p := newProcess(0, files[1], files[2], files[4])
	p.kill = killer(cmd)
	started := make(chan error, 1)
	go func() {
		// The kernel's "kill with the parent" follows the thread that
		// started the child, so that thread must live as long.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := cmd.Start()
		started <- err
		if err == nil {
			p.exit = cmd.Wait()
			close(p.exited)
		}
	}()
	if err := <-started; err != nil {
		closeAll()
		return nil, fmt.Errorf("start BGP child %s: %w", command[0], err)
	}
	for _, f := range []*os.File{files[0], files[3], files[5]} {
		_ = f.Close()
	}
	p.pid = cmd.Process.Pid
	return p, nil
}

// childEnvironment adds what the child needs to env; it is never nil, which would mean ours. Go listens with multipath
// TCP where the kernel has it, and such a socket takes no TCP MD5 key. Labels in tracebacks say whose message it was
// that ended a child.
func childEnvironment(env []string) []string {
	const name, setting = "GODEBUG=", "multipathtcp=0,tracebacklabels=1"
	value := setting
	out := make([]string, 0, len(env)+1)
	for _, v := range env {
		if rest, ok := strings.CutPrefix(v, name); ok {
			if rest != "" {
				value = rest + "," + setting // the later one counts
			}
			continue
		}
		out = append(out, v)
	}
	return append(out, name+value)
}

// send writes one order; a child that takes none for the length of timeout is hung.
func (p *process) send(o order, timeout time.Duration) error {
	if err := p.orders.SetWriteDeadline(time.Now().Add(timeout)); err != nil {
		return fmt.Errorf("set deadline: %w", err)
	}
	return writeMessage(p.orders, o)
}

// end closes the pipes, waits for the process at most grace, then kills it. It returns why it ended, nil after a clean
// end. Readers of reports and errs see their end.
func (p *process) end(grace time.Duration) error {
	_ = p.orders.Close()
	timer := time.NewTimer(grace)
	defer timer.Stop()
	select {
	case <-p.exited:
	case <-timer.C:
		p.kill()
		<-p.exited
	}
	return p.exit
}

// buryWait is for a child whose pipe broke to be seen dead.
const buryWait = 200 * time.Millisecond

// bury makes sure that a child that is of no use any more is dead: what it still announces has no parent. It
// returns the child's own end if it came first, else why.
func (p *process) bury(why error) error {
	timer := time.NewTimer(buryWait)
	defer timer.Stop()
	select {
	case <-p.exited:
		return p.end(0)
	case <-timer.C:
	}
	p.kill()
	_ = p.end(stopGrace)
	return why
}

// closeReaders frees the reading ends, after their readers are done or must be.
func (p *process) closeReaders() {
	_ = p.reports.Close()
	_ = p.errs.Close()
}

// lastError is the best explanation of the child's end.
func (p *process) lastError() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.last
}

// blamed is the peer whose message ended the child; zero = not known.
func (p *process) blamed() netip.Addr {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.autopsy.culprit
}

// readLog passes the child's log on until the pipe ends. Lines that are not the child's own are a crash: its first line
// is kept, the rest logged up to a limit.
func (p *process) readLog(log *slog.Logger, dropped func()) {
	reader := bufio.NewReaderSize(p.errsGate, maxLogLine)
	for {
		line, _, err := reader.ReadLine()
		if err != nil {
			return
		}
		if len(line) == 0 {
			continue
		}
		if p.passOn(log, line) {
			continue
		}
		p.mu.Lock()
		text := strings.ToValidUTF8(string(line), "�")
		if p.raw == 0 || strings.HasPrefix(text, "panic: ") || strings.HasPrefix(text, "fatal error: ") {
			p.last = text
		}
		p.autopsy.read(text)
		p.raw++
		show := p.raw <= maxRawLines
		p.mu.Unlock()
		if !show {
			dropped()
			continue
		}
		log.Error("BGP child wrote", "line", text)
	}
}

// passOn logs one line of the child's slog and reports whether it was one.
func (p *process) passOn(log *slog.Logger, line []byte) bool {
	var fields map[string]any
	read := json.NewDecoder(bytes.NewReader(line))
	read.UseNumber() // a 4-byte AS number as it is, and not as 4.2e+09
	if line[0] != '{' || read.Decode(&fields) != nil {
		return false
	}
	message, ok := fields["msg"].(string)
	if !ok {
		return false
	}
	var level slog.Level
	name, _ := fields["level"].(string)
	if level.UnmarshalText([]byte(name)) != nil {
		return false
	}
	if level >= slog.LevelError {
		p.mu.Lock()
		p.last = message
		for _, k := range []string{"error", "reason"} {
			if v, ok := fields[k]; ok {
				p.last = fmt.Sprintf("%v", v)
			}
		}
		p.mu.Unlock()
	}
	keys := make([]string, 0, len(fields))
	for k := range fields {
		if k != "msg" && k != "level" && k != "time" {
			keys = append(keys, k)
		}
	}
	slices.Sort(keys)
	attrs := make([]any, 0, 2*len(keys))
	for _, k := range keys {
		attrs = append(attrs, k, fields[k])
	}
	log.Log(context.Background(), level, message, attrs...)
	return true
}

// describe turns the end of a child into one line for people.
func (p *process) describe(exit error) string {
	last := p.lastError()
	var e *exec.ExitError
	switch {
	case exit == nil && last == "":
		return "it ended without being told to"
	case exit == nil:
		return last
	case last != "" && errors.As(exit, &e):
		return fmt.Sprintf("%s (%s)", last, e.ProcessState)
	default:
		return exit.Error()
	}
}
