package rig

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"
)

func TestFigures(t *testing.T) {
	var f Figures
	if f.Median() != 0 || f.Spread("%.1f") != "–" {
		t.Error("no figures are no figure")
	}
	for _, v := range []float64{9, 1, 4} {
		f.Add(v)
	}
	if got := f.Spread("%.1f"); got != "4.0 (1.0–9.0)" {
		t.Errorf("got %s", got)
	}
	f.Add(5)
	if f.Median() != 4.5 || f.Len() != 4 {
		t.Errorf("median of an even number: got %v", f.Median())
	}
}

func TestTable(t *testing.T) {
	table := Table{Columns: []string{"server", "µs"}}
	table.Row("a", "1")
	table.Row("b")
	if got, want := table.String(), "| server | µs |\n|---|---|\n| a | 1 |\n| b |  |\n"; got != want {
		t.Errorf("got\n%s", got)
	}
}

func TestKeep(t *testing.T) {
	file := filepath.Join(t.TempDir(), "b.md")
	text := "# B\n<!-- dns -->\nold\n<!-- /dns -->\nend\n"
	if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := Keep(file, "l4", "new"); err == nil {
		t.Error("a section that is not there was kept")
	}
	if err := Keep(file, "dns", "new\n"); err != nil {
		t.Fatal(err)
	}
	if got, _ := os.ReadFile(file); string(got) != strings.Replace(text, "old", "new", 1) {
		t.Errorf("got %s", got)
	}
}

// What a program's children use counts, and Stop leaves none of them.
func TestProcess(t *testing.T) {
	p, err := Start(ServerCore, "sh", "-c", "echo ready; sh -c 'while :; do :; done'; true")
	if err != nil {
		t.Skip(err)
	}
	defer p.Stop()
	for deadline := time.Now().Add(20 * time.Second); ; {
		used, err := p.CPU()
		if err != nil {
			t.Fatal(err)
		}
		if used > 50*time.Millisecond {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("a busy child used %v", used)
		}
		time.Sleep(5 * time.Millisecond) // it takes time to use time
	}
	m, err := p.Memory()
	if err != nil || m.RSS < m.PSS || m.PSS == 0 {
		t.Errorf("memory %+v, %v", m, err)
	}
	pids, err := p.tree()
	if err != nil || len(pids) < 2 {
		t.Errorf("processes %v, %v", pids, err)
	}
	p.Stop()
	if !p.Exited() || !strings.Contains(p.Log(), "ready") {
		t.Errorf("exited %v, log %q", p.Exited(), p.Log())
	}
	if _, err := p.CPU(); err == nil {
		t.Error("the CPU time of what has ended was read")
	}
	for _, pid := range pids {
		if data, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "stat")); err == nil && !strings.Contains(string(data), ") Z ") {
			t.Errorf("process %d was left: %s", pid, data)
		}
	}
}
