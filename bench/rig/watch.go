package rig

import (
	"fmt"
	"os"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// urgency is the nice value of what is measured and of the load, where it is
// allowed: what else the machine does then falls on them less.
const urgency = -19

// Hurry puts this process, and the programs that it starts from now on, before
// others. It reports whether that was allowed.
func Hurry() bool {
	entries, err := os.ReadDir("/proc/self/task")
	if err != nil {
		return false
	}
	for _, e := range entries {
		if tid, err := strconv.Atoi(e.Name()); err != nil || unix.Setpriority(unix.PRIO_PROCESS, tid, urgency) != nil {
			return false
		}
	}
	return true
}

// A Watch looks at what else took the machine's time during a measurement.
type Watch struct {
	programs []*Process
	before   ticks
	used     time.Duration
}

// NewWatch begins to watch; programs are those of the measurement.
func NewWatch(programs []*Process) (*Watch, error) {
	w := &Watch{programs: programs}
	var err error
	if w.before, err = readTicks(); err == nil {
		w.used, err = w.ours()
	}
	return w, err
}

// ours is the CPU time of this process and of the programs.
func (w *Watch) ours() (time.Duration, error) {
	var self syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &self); err != nil {
		return 0, err
	}
	sum := time.Duration(self.Utime.Nano() + self.Stime.Nano())
	for _, p := range w.programs {
		used, err := p.CPU()
		if err != nil {
			return 0, err
		}
		sum += used
	}
	return sum, nil
}

// Others returns which shares of all cores other programs took and the hypervisor
// kept back since NewWatch. The kernel counts in hundredths of a second.
func (w *Watch) Others() (taken, kept float64, err error) {
	after, err := readTicks()
	if err != nil {
		return 0, 0, err
	}
	used, err := w.ours()
	if err != nil {
		return 0, 0, err
	}
	const second = 100 // ticks, USER_HZ of every Linux
	total := float64(max(1, after.total-w.before.total))
	others := float64(after.busy-w.before.busy) - (used-w.used).Seconds()*second
	return max(0, others) / total, float64(after.steal-w.before.steal) / total, nil
}

// String says what other programs and the hypervisor took since NewWatch.
func (w *Watch) String() string {
	taken, kept, err := w.Others()
	if err != nil {
		return ""
	}
	return fmt.Sprintf("Meanwhile other programs had %.0f %% of the %d cores, and the hypervisor kept %.1f %% back.",
		taken*100, runtime.NumCPU(), kept*100)
}

// ticks are of all cores together.
type ticks struct{ busy, steal, total uint64 }

// readTicks reads the first line of /proc/stat (proc_stat(5)).
func readTicks() (ticks, error) {
	data, err := os.ReadFile("/proc/stat")
	if err != nil {
		return ticks{}, err
	}
	line, _, _ := strings.Cut(string(data), "\n")
	fields := strings.Fields(line)
	if len(fields) < 9 {
		return ticks{}, fmt.Errorf("read /proc/stat: %q", line)
	}
	var t ticks
	for i, field := range fields[1:9] { // user nice system idle iowait irq softirq steal
		n, err := strconv.ParseUint(field, 10, 64)
		if err != nil {
			return ticks{}, fmt.Errorf("read /proc/stat: %w", err)
		}
		t.total += n
		switch i {
		case 3, 4:
		case 7:
			t.steal = n
		default:
			t.busy += n
		}
	}
	return t, nil
}
