package main

import (
	"bufio"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// TestLabStopsInOrder: a second signal does not end a lab before it has taken everything down.
func TestLabStopsInOrder(t *testing.T) {
	if os.Getuid() != 0 || testing.Short() {
		t.Skip("the lab needs root")
	}
	if _, err := exec.LookPath("nft"); err != nil {
		t.Skip("the lab needs nft")
	}
	config, err := filepath.Abs("../../internal/lab/testdata/three.yaml")
	if err != nil {
		t.Fatal(err)
	}
	t.Setenv("TMPDIR", t.TempDir())
	cmd := exec.Command("pharos", "lab", "up", config, "--name", "tsig")
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if said, err := exec.Command("pharos", "lab", "clean", "--name", "tsig").CombinedOutput(); err != nil {
			t.Errorf("clean: %v: %s", err, said)
		}
	})
	lines := bufio.NewScanner(out)
	for up := false; !up && lines.Scan(); {
		up = strings.Contains(lines.Text(), "Ctrl-C")
	}
	cmd.Process.Signal(syscall.SIGTERM) // what it does is looked at below
	for lines.Scan() && !strings.Contains(lines.Text(), "stopping") {
	}
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for range 50 {
		cmd.Process.Signal(syscall.SIGTERM)
		cmd.Process.Signal(os.Interrupt)
		<-tick.C
	}
	ended := time.AfterFunc(20*time.Second, func() { cmd.Process.Kill() })
	defer ended.Stop()
	if err := cmd.Wait(); err != nil {
		t.Errorf("the lab ended with %v", err)
	}
	if left, _ := filepath.Glob("/run/netns/ph-tsig-*"); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
}
