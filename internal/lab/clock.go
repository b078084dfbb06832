package lab

import (
	"bytes"
	"debug/elf"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// A node's wall clock is shifted where the node reads it: in its own copy of
// the vDSO, the kernel's page of code that every process asks for the time.
// The copy's clock_gettime is led to a few instructions that make the system
// call and add the offset to the wall clock; the monotonic clock is left
// alone. The node is the unmodified program, with no switch for this in it,
// and neither the host's clock nor any other process sees anything of it.

// canShift is where the instructions below are understood.
const canShift = runtime.GOARCH == "amd64"

var errNoShift = errors.New("the lab can shift clocks on linux/amd64 only")

// shifted is clock_gettime(edi, rsi); its last eight bytes are the offset in
// seconds.
var shifted = []byte{
	0xb8, 0xe4, 0, 0, 0, // mov eax, 228 (clock_gettime)
	0x0f, 0x05, // syscall
	0x85, 0xc0, // test eax, eax
	0x75, 19, // jnz done
	0x85, 0xff, // test edi, edi (CLOCK_REALTIME)
	0x74, 5, // jz add
	0x83, 0xff, 5, // cmp edi, 5 (CLOCK_REALTIME_COARSE)
	0x75, 10, // jnz done
	0x48, 0x8b, 0x15, 5, 0, 0, 0, // add: mov rdx, [rip+5]
	0x48, 0x01, 0x16, // add [rsi], rdx
	0xc3,                   // done: ret
	0,                      // align
	0, 0, 0, 0, 0, 0, 0, 0, // the offset
}

// unused stands for gettimeofday, whose room the instructions take and which
// Go programs do not call: the plain system call.
var unused = []byte{0xb8, 0x60, 0, 0, 0, 0x0f, 0x05, 0xc3}

// room is how far into gettimeofday the instructions begin.
const room = 16

// stopWithin bounds how long a process may take to stop.
const stopWithin = 10 * time.Second

// startShifted sets the clock of a process that waits at its first instruction
// for the calling thread, which traces it, and lets it go.
func startShifted(pid int, offset time.Duration) error {
	var ws unix.WaitStatus
	if _, err := unix.Wait4(pid, &ws, 0, nil); err != nil {
		return fmt.Errorf("await the start of process %d: %w", pid, err)
	}
	if !ws.Stopped() {
		return fmt.Errorf("process %d ended before it began", pid)
	}
	if err := patchClock(pid, offset); err != nil {
		return err
	}
	if err := unix.PtraceDetach(pid); err != nil {
		return fmt.Errorf("let process %d go: %w", pid, err)
	}
	return nil
}

// shiftClock sets the clock of a running process and of its children. They are
// stopped for a moment; frozen ones stay stopped.
func shiftClock(pid int, offset time.Duration, frozen bool) error {
	for _, p := range relatives(pid) {
		if err := syscall.Kill(p, syscall.SIGSTOP); err != nil {
			continue // it has just ended
		}
		err := awaitOutside(p)
		if err == nil {
			err = patchClock(p, offset)
		}
		if !frozen || p != pid {
			syscall.Kill(p, syscall.SIGCONT) // see above
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// relatives returns a process and its children.
func relatives(pid int) []int {
	out := []int{pid}
	files, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", pid))
	for _, name := range files {
		data, _ := os.ReadFile(name) // the thread may have ended
		for _, field := range strings.Fields(string(data)) {
			if child, err := strconv.Atoi(field); err == nil {
				out = append(out, child)
			}
		}
	}
	return out
}

// awaitOutside waits until every thread of a process stands still, and none of
// them in the bytes that are about to change.
func awaitOutside(pid int) error {
	image, err := readVDSO(pid)
	if err != nil {
		return err
	}
	deadline := time.Now().Add(stopWithin)
	for time.Now().Before(deadline) {
		if still, inside := threads(pid, image); still && !inside {
			return nil
		} else if still {
			syscall.Kill(pid, syscall.SIGCONT) // let it leave; stopped again below
			time.Sleep(time.Millisecond)
			syscall.Kill(pid, syscall.SIGSTOP)
		}
		time.Sleep(time.Millisecond) // another process's state cannot be waited for
	}
	return fmt.Errorf("process %d did not stop within %s", pid, stopWithin)
}

// threads reports whether all threads stand still, and whether one stands at
// the first instructions of clock_gettime.
func threads(pid int, v *vdso) (still, inside bool) {
	files, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/syscall", pid))
	for _, name := range files {
		data, err := os.ReadFile(name)
		if err != nil {
			continue // the thread has ended
		}
		fields := strings.Fields(string(data)) // "running", or number … sp pc
		if len(fields) < 3 {
			return false, false
		}
		pc, err := strconv.ParseUint(strings.TrimPrefix(fields[len(fields)-1], "0x"), 16, 64)
		at := v.base + v.get
		inside = inside || err == nil && pc > at && pc < at+jumpLen
	}
	return len(files) > 0, inside
}

// jumpLen is the length of a jump with a 32-bit distance.
const jumpLen = 5

// patchClock writes the instructions into a process that stands still.
func patchClock(pid int, offset time.Duration) error {
	v, err := readVDSO(pid)
	if err != nil {
		return err
	}
	code := slices.Clone(shifted)
	binary.LittleEndian.PutUint64(code[len(code)-8:], uint64(int64(offset/time.Second)))
	jump := binary.LittleEndian.AppendUint32([]byte{0xe9}, uint32(int32(int64(v.day+room)-int64(v.get+jumpLen))))
	mem, err := os.OpenFile(fmt.Sprintf("/proc/%d/mem", pid), os.O_RDWR, 0)
	if err != nil {
		return fmt.Errorf("shift the clock: %w", err)
	}
	defer mem.Close()
	for _, w := range []struct {
		at   uint64
		data []byte
	}{{v.day + room, code}, {v.day, unused}, {v.get, jump}} { // the jump last
		if _, err := mem.WriteAt(w.data, int64(v.base+w.at)); err != nil {
			return fmt.Errorf("shift the clock: %w", err)
		}
	}
	return nil
}

// A vdso is where a process has the kernel's code.
type vdso struct {
	base     uint64
	get, day uint64 // clock_gettime and gettimeofday, from base
}

const (
	auxVDSO     = 33 // AT_SYSINFO_EHDR
	maxVDSOSize = 64 << 10
)

// readVDSO finds the code of a process.
func readVDSO(pid int) (*vdso, error) {
	aux, err := os.ReadFile(fmt.Sprintf("/proc/%d/auxv", pid))
	if err != nil {
		return nil, fmt.Errorf("find the clock: %w", err)
	}
	v := &vdso{}
	for ; len(aux) >= 16; aux = aux[16:] {
		if binary.LittleEndian.Uint64(aux) == auxVDSO {
			v.base = binary.LittleEndian.Uint64(aux[8:])
		}
	}
	mem, err := os.Open(fmt.Sprintf("/proc/%d/mem", pid))
	if err != nil {
		return nil, fmt.Errorf("find the clock: %w", err)
	}
	defer mem.Close()
	image := make([]byte, maxVDSOSize)
	n, err := mem.ReadAt(image, int64(v.base))
	if n == 0 {
		return nil, fmt.Errorf("find the clock of process %d: %w", pid, err)
	}
	file, err := elf.NewFile(bytes.NewReader(image[:n]))
	if err != nil {
		return nil, fmt.Errorf("find the clock of process %d: %w", pid, err)
	}
	symbols, err := file.DynamicSymbols()
	if err != nil {
		return nil, fmt.Errorf("find the clock of process %d: %w", pid, err)
	}
	for _, s := range symbols {
		switch {
		case s.Name == "__vdso_clock_gettime" && s.Size >= jumpLen:
			v.get = s.Value
		case s.Name == "__vdso_gettimeofday" && s.Size >= room+uint64(len(shifted)):
			v.day = s.Value
		}
	}
	if v.get == 0 || v.day == 0 {
		return nil, fmt.Errorf("find the clock of process %d: this kernel's vDSO is built in a way the lab does not know", pid)
	}
	return v, nil
}
