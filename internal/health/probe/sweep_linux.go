package probe

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"slices"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

// sweepFor is how long a keeper tries to end what a command left behind.
const sweepFor = time.Second

// KeeperMain is the main function of a keeper, the process that runs the commands
// of Exec checks: it reads orders and writes how their commands ended, until its
// input ends. Then it kills what still runs.
func KeeperMain(in io.Reader, out io.Writer) error {
	// All commands are started by this thread: what it has given away is not theirs
	// either, and they die with it.
	runtime.LockOSThread()
	if err := confine(); err != nil {
		return err
	}
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		return fmt.Errorf("become the parent of orphans: %w", err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	orders := make(chan order)
	go func() {
		defer close(orders)
		defer cancel()
		for d := json.NewDecoder(in); ; {
			var o order
			if d.Decode(&o) != nil {
				return
			}
			select {
			case orders <- o:
			case <-ctx.Done():
				return
			}
		}
	}()
	answers := json.NewEncoder(out)
	for o := range orders {
		if err := answers.Encode(execute(ctx, o)); err != nil && ctx.Err() == nil {
			return fmt.Errorf("answer: %w", err)
		}
	}
	return nil
}

// sweep kills all descendants of this process and reaps its children, until there
// are none. It returns how many there still are after sweepFor.
//
// One round does not do: between the look and the kill a process can start another
// and end. But that other is then a child of this process, and the next round sees
// it.
func sweep() (left int) {
	deadline := time.Now().Add(sweepFor)
	for pause := time.Microsecond; ; pause = min(2*pause, time.Millisecond) {
		if !reap() {
			return 0
		}
		family, err := descendants(os.Getpid())
		if err != nil {
			return 1 // at least
		}
		for _, pid := range family {
			_ = unix.Kill(pid, unix.SIGKILL)
		}
		if time.Now().After(deadline) {
			return len(family)
		}
		time.Sleep(pause)
	}
}

// reap takes note of the end of all children that have ended, and reports whether
// there are more.
func reap() bool {
	for {
		pid, err := unix.Wait4(-1, nil, unix.WNOHANG|unix.WALL, nil)
		switch {
		case errors.Is(err, unix.EINTR):
		case err != nil:
			return false
		case pid == 0:
			return true
		}
	}
}

// descendants returns the children of a process, their children and so on. It is
// quick, because the families that are hard to end are those of which no member
// lives for long.
func descendants(of int) ([]int, error) {
	family, err := childrenOf(of)
	if errors.Is(err, os.ErrNotExist) { // a kernel without CONFIG_PROC_CHILDREN
		return scanDescendants(of)
	}
	for i := 0; i < len(family); i++ {
		more, _ := childrenOf(family[i]) // it may have ended
		family = append(family, more...)
	}
	return family, err
}

// childrenOf returns the children of all threads of a process.
func childrenOf(pid int) (children []int, err error) {
	dir := "/proc/" + strconv.Itoa(pid) + "/task"
	tasks, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	for _, t := range tasks {
		text, err := os.ReadFile(dir + "/" + t.Name() + "/children")
		if err != nil {
			if _, gone := os.Stat(dir + "/" + t.Name()); gone != nil {
				continue
			}
			return nil, err
		}
		for _, field := range bytes.Fields(text) {
			if pid, err := strconv.Atoi(string(field)); err == nil {
				children = append(children, pid)
			}
		}
	}
	return children, nil
}

// scanDescendants finds descendants by a look at every process there is.
func scanDescendants(of int) ([]int, error) {
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
		stat, err := os.ReadFile("/proc/" + e.Name() + "/stat")
		if err != nil {
			continue // it has ended
		}
		if _, parent, ok := parseStat(stat); ok {
			children[parent] = append(children[parent], pid)
		}
	}
	family := slices.Clone(children[of])
	for i := 0; i < len(family); i++ {
		family = append(family, children[family[i]]...)
	}
	return family, nil
}

// parseStat reads the state and the parent of a process from its /proc/PID/stat. The
// name in it may hold anything, parentheses too.
func parseStat(stat []byte) (state byte, parent int, ok bool) {
	i := bytes.LastIndexByte(stat, ')')
	if i < 0 {
		return 0, 0, false
	}
	fields := bytes.Fields(stat[i+1:])
	if len(fields) < 2 || len(fields[0]) != 1 {
		return 0, 0, false
	}
	parent, err := strconv.Atoi(string(fields[1]))
	return fields[0][0], parent, err == nil
}
