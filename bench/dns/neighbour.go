package main

import (
	"fmt"
	"io"
	"os"
	"os/exec"
	"sync/atomic"
	"syscall"
	"time"
)

// neighbourVariable makes this program a neighbour.
const neighbourVariable = "PHAROS_BENCH_NEIGHBOUR"

// neighbourMemory is what a neighbour walks through, so that it takes caches from others as a program that reads a zone does.
const neighbourMemory = 64 << 20

// beNeighbour is the whole program of a neighbour, if this process is to be one: it keeps one core busy until its standard input ends.
func beNeighbour() {
	if os.Getenv(neighbourVariable) == "" {
		return
	}
	var stop atomic.Bool
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin)
		stop.Store(true)
	}()
	memory := make([]byte, neighbourMemory)
	for at := 0; !stop.Load(); at = (at + 64) % neighbourMemory {
		memory[at]++
	}
	os.Exit(0)
}

// beside keeps a neighbour busy, which has nothing to do with any server, for so long.
func beside(span time.Duration) error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	child := exec.Command(self)
	child.Env = append(os.Environ(), neighbourVariable+"=1")
	child.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	in, err := child.StdinPipe()
	if err != nil {
		return err
	}
	if err := child.Start(); err != nil {
		return fmt.Errorf("start a neighbour: %w", err)
	}
	time.Sleep(span)
	_ = in.Close()
	return child.Wait()
}
