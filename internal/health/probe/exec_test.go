//go:build linux

package probe

import (
	"context"
	"fmt"
	"os"
	"os/user"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
)

// shell is a check that runs a script, in which $1 is a folder for the test.
func shell(t *testing.T, script string, args ...string) Check {
	t.Helper()
	dir := t.TempDir()
	return Check{
		Target: target("10.0.0.1:8080"), Kind: Exec, Timeout: 30 * time.Second,
		Exec: ExecCommand{Command: append([]string{"/bin/sh", "-c", script, "sh", dir}, args...)},
	}.WithDefaults()
}

// runOnce runs a check with its timeout.
func runOnce(t *testing.T, c Check) Result {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), c.Timeout)
	defer cancel()
	s := newCommands(newMetrics(), testKeeper)
	defer s.close()
	return s.run(ctx, c)
}

func TestExec(t *testing.T) {
	for _, tt := range []struct {
		name, script string
		want         Result
	}{
		{"up", `echo fine`, Result{}},
		{"weight", `echo "weight 40"; echo more`, Result{Weight: 40, HasWeight: true}},
		{"weight of a failure", `echo "weight 40"; exit 1`, Result{Code: 1, Err: "exit status 1: weight 40"}},
		{"no weight", `echo "weight 400"`, Result{}},
		{"last line", `echo first; echo; echo "disk full" >&2; echo; exit 2`, Result{Code: 2, Err: "exit status 2: disk full"}},
		{"no words", `exit 125`, Result{Code: 125, Err: "exit status 125"}},
		{"not executable", `exit 126`, Result{Code: 126, Inconclusive: true, Err: "exec: could not run, exit status 126"}},
		{"not found", `exec /no/such/program 2>/dev/null`, Result{Code: 127, Inconclusive: true, Err: "exec: could not run, exit status 127"}},
		{"child killed", `exit 137`, Result{Code: 137, Err: "exit status 137"}},
		{"killed", `kill -TERM $$`, Result{Err: "ended by signal terminated"}},
		{"control characters", `printf 'a\001\033[31mb'; exit 1`, Result{Code: 1, Err: "exit status 1: a  [31mb"}},
		{"much output", `i=0; while [ $i -lt 2000 ]; do echo 0123456789; i=$((i+1)); done; echo the end; exit 1`, Result{Code: 1, Err: "exit status 1: the end"}},
		{"too much output", `yes`, Result{Err: "wrote more than 1024 KiB"}},
		{"input", `cat; exit 3`, Result{Code: 3, Err: "exit status 3"}},
		{"folder", `pwd; exit 1`, Result{Code: 1, Err: "exit status 1: /"}},
		{"core dumps", `ulimit -c; exit 1`, Result{Code: 1, Err: "exit status 1: 0"}},
		{"files", `ulimit -n; exit 1`, Result{Code: 1, Err: "exit status 1: 64"}},
		{"file size", `head -c 3000000 /dev/zero >"$1/big" 2>/dev/null; wc -c <"$1/big"; exit 1`, Result{Code: 1, Err: "exit status 1: 1048576"}},
		{"memory", `head -c 900000000 /dev/zero | tail -c 900000000 >/dev/null 2>&1 && echo no limit; exit 1`, Result{Code: 1, Err: "exit status 1"}},
		{"no new privileges", `grep NoNewPrivs /proc/self/status; exit 1`, Result{Code: 1, Err: "exit status 1: NoNewPrivs: 1"}},
		{"ambient capabilities", `grep CapAmb /proc/self/status; exit 1`, Result{Code: 1, Err: "exit status 1: CapAmb: 0000000000000000"}},
		{"own group", `[ "$(cut -d' ' -f5 /proc/$$/stat)" = $$ ]`, Result{}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			got := runOnce(t, shell(t, tt.script))
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Error(diff)
			}
		})
	}
}

// TestExecMissing: a program that is not there is this node's trouble, and is named.
func TestExecMissing(t *testing.T) {
	c := shell(t, "")
	c.Exec.Command = []string{"/no/such/program"}
	r := runOnce(t, c)
	if !r.Inconclusive || r.Code != 127 || !strings.HasPrefix(r.Err, "exec: could not run, exit status 127: sh: ") || !strings.Contains(r.Err, "/no/such/program") {
		t.Errorf("%+v", r)
	}
}

// TestExecSeesTheTarget: in its arguments, its environment, and nothing else.
func TestExecSeesTheTarget(t *testing.T) {
	t.Setenv("PHAROS_TEST_SECRET", "hunter2")
	c := shell(t, `shift; echo "$*" >"$0/args"; env | sort >"$0/env"`)
	dir := t.TempDir()
	c.Exec.Command = append(append(c.Exec.Command[:3:3], dir, "-"), "{address}", "{host}", "x{port}y", "{service}", "{site}", "{site}{unknown}", "$(id)", "a b;c")
	if r := runOnce(t, c); !r.OK() {
		t.Fatal(r)
	}
	read := func(name string) string {
		text, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		return string(text)
	}
	if diff := cmp.Diff("10.0.0.1:8080 10.0.0.1 x8080y web fra fra{unknown} $(id) a b;c\n", read("args")); diff != "" {
		t.Error(diff)
	}
	want := `LANG=C.UTF-8
PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
PHAROS_ADDRESS=10.0.0.1:8080
PHAROS_HOST=10.0.0.1
PHAROS_KIND=backend
PHAROS_PORT=8080
PHAROS_SERVICE=web
PHAROS_SITE=fra
PWD=/
`
	if diff := cmp.Diff(want, read("env")); diff != "" {
		t.Error(diff)
	}
}

// alive reports whether the process whose number is in a file runs (a zombie, that
// its parent has yet to reap, does not).
func alive(t *testing.T, file string) bool {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	stat, err := os.ReadFile("/proc/" + strings.TrimSpace(string(text)) + "/stat")
	if err != nil {
		return false
	}
	_, after, _ := strings.Cut(string(stat), ") ")
	return !strings.HasPrefix(after, "Z") && !strings.HasPrefix(after, "X")
}

// dies waits for the end of a process that was killed, which is not at once: it is
// not ours to wait for.
func dies(t *testing.T, file string) {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); alive(t, file); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Error("what the command started lives on")
			return
		}
	}
}

// TestExecTimeout: at the deadline the whole group is killed, at once, however
// the command tries to stay.
func TestExecTimeout(t *testing.T) {
	for _, script := range []string{
		`sleep 1000 & echo $! >"$1/pid"; wait`,
		`trap '' TERM INT HUP; sleep 1000 & echo $! >"$1/pid"; while :; do sleep 1; done`,
		`(trap '' HUP; sleep 1000) & echo $! >"$1/pid"; exec sleep 1000`,
	} {
		c := shell(t, script)
		c.Timeout = 2 * time.Second
		began := time.Now()
		r := runOnce(t, c)
		if took := time.Since(began); took > 10*time.Second {
			t.Errorf("%s: took %v", script, took)
		}
		if r.Inconclusive && strings.Contains(r.Err, "too slow") {
			continue // a busy machine
		}
		if diff := cmp.Diff(Result{Code: r.Code, Err: "timed out after 2s"}, r); diff != "" {
			t.Errorf("%s: %s", script, diff)
		}
		dies(t, filepath.Join(c.Exec.Command[4], "pid"))
	}
}

// TestExecGrandchild: one that is left behind is killed with the group.
func TestExecGrandchild(t *testing.T) {
	c := shell(t, `sleep 1000 & echo $! >"$1/pid"; echo bye; exit 4`)
	began := time.Now()
	r := runOnce(t, c)
	if r.Err != "exit status 4: bye" || time.Since(began) > 20*time.Second {
		t.Errorf("after %v: %+v", time.Since(began), r)
	}
	dies(t, filepath.Join(c.Exec.Command[4], "pid"))
}

// TestExecCancelled: a check that is removed takes its command along.
func TestExecCancelled(t *testing.T) {
	c := shell(t, `echo $$ >"$1/part"; mv "$1/part" "$1/pid"; exec sleep 1000`)
	c.Timeout = time.Minute
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan Result)
	s := newCommands(newMetrics(), testKeeper)
	defer s.close()
	go func() { done <- s.run(ctx, c) }()
	pid := filepath.Join(c.Exec.Command[4], "pid")
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(time.Millisecond) { // another process: nothing to wait on
		if _, err := os.Stat(pid); err == nil {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("never started")
		}
	}
	cancel()
	<-done
	dies(t, pid)
}

// TestExecLeavesNoZombie: nor goroutine (TestMain looks), nor file, nor thread.
func TestExecLeavesNoZombie(t *testing.T) {
	files := func() int {
		entries, err := os.ReadDir("/proc/self/fd")
		if err != nil {
			t.Fatal(err)
		}
		return len(entries)
	}
	before := files()
	for range 20 {
		runOnce(t, shell(t, `sleep 1000 & exit 1`))
	}
	if after := files(); after > before+3 {
		t.Errorf("%d open files, %d before", after, before)
	}
	var status syscall.WaitStatus
	if pid, err := syscall.Wait4(-1, &status, syscall.WNOHANG, nil); pid > 0 { // their keepers too
		t.Errorf("%d was left to reap: %v, %v", pid, status, err)
	}
}

func TestExecCannotStart(t *testing.T) {
	script := filepath.Join(t.TempDir(), "script")
	if err := os.WriteFile(script, []byte("not a program"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, program := range []string{"/no/such/program", "/", script} {
		c := Check{Target: target("10.0.0.1:80"), Kind: Exec, Exec: ExecCommand{Command: []string{program}}}.WithDefaults()
		if r := runOnce(t, c); !r.Inconclusive || !strings.HasPrefix(r.Err, "exec: could not run, exit status 12") {
			t.Errorf("%s: %+v", program, r)
		}
	}
	c := shell(t, "true")
	c.Exec.User = "nobody-of-that-name"
	if r := runOnce(t, c); !r.Inconclusive || !strings.Contains(r.Err, "nobody-of-that-name") {
		t.Errorf("unknown user: %+v", r)
	}
}

func TestExecUser(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root to become somebody else")
	}
	nobody, err := user.Lookup("nobody")
	if err != nil {
		t.Skip("no user nobody here")
	}
	c := shell(t, `echo "$(id -u) $(id -g) $(id -G)"; exit 1`)
	c.Exec.User = "nobody"
	want := fmt.Sprintf("exit status 1: %s %s %s", nobody.Uid, nobody.Gid, nobody.Gid)
	if r := runOnce(t, c); r.Err != want {
		t.Errorf("%+v, want %s", r, want)
	}
}

// TestExecIsBounded: of many commands MaxExec run at a time, as many wait as may,
// and nobody longer than the timeout.
func TestExecIsBounded(t *testing.T) {
	m := newMetrics()
	s := newCommands(m, testKeeper)
	defer s.close()
	reg := prometheus.NewRegistry()
	if err := registerAll(reg, m.all()...); err != nil {
		t.Fatal(err)
	}
	c := shell(t, `sleep 1000`)
	c.Timeout = 5 * time.Second // in which a busy machine, too, has started as many as may run
	ctx, cancel := context.WithTimeout(t.Context(), c.Timeout)
	defer cancel()
	results := make([]Result, MaxExec+maxWaiting+10)
	var all sync.WaitGroup
	for i := range results {
		all.Go(func() { results[i] = s.run(ctx, c) })
	}
	all.Wait()
	count := map[string]int{}
	for _, r := range results {
		switch {
		case strings.Contains(r.Err, "no turn in time") && r.Inconclusive:
			count["crowded"]++
		case strings.Contains(r.Err, "timed out after 5s"), strings.Contains(r.Err, "too slow"), strings.Contains(r.Err, "did not answer"): // the latter two on a busy machine
			count["ran"]++
		default:
			t.Errorf("got %+v", r)
		}
	}
	want := map[string]int{"ran": MaxExec, "crowded": maxWaiting + 10}
	if diff := cmp.Diff(want, count); diff != "" {
		t.Error(diff)
	}
	if n := metricSum(t, reg, "pharos_probe_crowded_commands_total"); n != maxWaiting+10 {
		t.Errorf("%v crowded", n)
	}
	if n := metricSum(t, reg, "pharos_probe_running_commands"); n != 0 {
		t.Errorf("%v running", n)
	}
}
