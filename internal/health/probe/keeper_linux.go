package probe

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// A keeper is a child process that runs commands.
type keeper struct {
	// Immutable.
	cmd     *exec.Cmd
	orders  io.WriteCloser // its standard input; it ends when this is closed
	endings *json.Decoder  // of its standard output

	retire *time.Timer // while it is idle
}

// run has the command of c run by a keeper. It returns when the command and all
// that it started have ended.
func (s *keepers) run(ctx context.Context, c Check) ending {
	k, err := s.take()
	if err != nil {
		return ending{Trouble: err.Error()}
	}
	timeout := c.Timeout
	if deadline, ok := ctx.Deadline(); ok {
		timeout = time.Until(deadline)
	}
	ended := make(chan ending, 1)
	broken := make(chan error, 1)
	go func() {
		var e ending
		err := json.NewEncoder(k.orders).Encode(orderOf(c, monotonic()+timeout))
		if err == nil {
			err = k.endings.Decode(&e)
		}
		if err != nil {
			broken <- err
			return
		}
		ended <- e
	}()
	// The keeper minds the deadline; it is told only of the end that comes before.
	late := time.NewTimer(max(timeout, 0) + keeperGrace)
	defer late.Stop()
	gone := ctx.Done()
	if errors.Is(ctx.Err(), context.DeadlineExceeded) {
		gone = nil
	}
	for {
		select {
		case e := <-ended:
			s.put(k, e.Left == 0)
			return e
		case err := <-broken:
			k.end()
			return ending{Trouble: fmt.Sprintf("the process that runs commands ended: %v (%v)", err, k.cmd.ProcessState)}
		case <-late.C:
			k.end()
			return ending{Trouble: "the process that runs commands did not answer"}
		case <-gone:
			if errors.Is(ctx.Err(), context.DeadlineExceeded) {
				gone = nil
				continue
			}
			k.end()
			return ending{Status: -1, Signal: syscall.SIGKILL.String()}
		}
	}
}

// monotonic is the time on the clock that all processes share.
func monotonic() time.Duration {
	var t unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &t); err != nil {
		panic(err) // every kernel has it
	}
	return time.Duration(t.Nano())
}

// take returns an idle keeper, or a new one.
func (s *keepers) take() (*keeper, error) {
	s.mu.Lock()
	if n := len(s.idle); n > 0 {
		k := s.idle[n-1] // so that those that are not needed grow old
		s.idle = s.idle[:n-1]
		s.mu.Unlock()
		k.retire.Stop()
		return k, nil
	}
	s.mu.Unlock()
	return startKeeper(s.argv)
}

// put takes a keeper back, whose command has ended. One that could not end all of
// it is not used again: what is left would be taken for the next command's.
func (s *keepers) put(k *keeper, clean bool) {
	s.mu.Lock()
	if s.closed || !clean || len(s.idle) >= maxIdle {
		s.mu.Unlock()
		k.end()
		return
	}
	s.idle = append(s.idle, k)
	k.retire = time.AfterFunc(idleFor, func() { s.retire(k) })
	s.mu.Unlock()
}

// retire ends a keeper that is idle for long, if it still is.
func (s *keepers) retire(k *keeper) {
	s.mu.Lock()
	i := slices.Index(s.idle, k)
	if i >= 0 {
		s.idle = slices.Delete(s.idle, i, i+1)
	}
	s.mu.Unlock()
	if i >= 0 {
		k.end()
	}
}

// close ends all idle keepers; those at work end with their command.
func (s *keepers) close() {
	s.mu.Lock()
	idle := s.idle
	s.idle, s.closed = nil, true
	s.mu.Unlock()
	for _, k := range idle {
		k.retire.Stop()
		k.end()
	}
}

// startKeeper starts a keeper.
func startKeeper(argv []string) (*keeper, error) {
	if len(argv) == 0 {
		return nil, errors.New("nothing is set up to run commands")
	}
	cmd := exec.Command(argv[0], argv[1:]...)
	// It ends with its input, not with this process: it has something to end first.
	// A Ctrl-C in a terminal is for this process alone.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Env = []string{"PATH=" + commandPath}
	cmd.Stderr = os.Stderr // nothing, or how it crashed
	in, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		in.Close()
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		in.Close()
		out.Close()
		return nil, fmt.Errorf("start %s: %w", argv[0], err)
	}
	return &keeper{cmd: cmd, orders: in, endings: json.NewDecoder(out)}, nil
}

// end ends a keeper: by closing its input, upon which it kills what it runs. One
// that does not end by that is killed.
func (k *keeper) end() {
	_ = k.orders.Close()
	kill := time.AfterFunc(sweepFor+keeperGrace, func() { _ = k.cmd.Process.Kill() })
	defer kill.Stop()
	_ = k.cmd.Wait()
}
