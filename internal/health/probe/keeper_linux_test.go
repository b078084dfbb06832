package probe

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/pharos-lb/pharos/internal/health"
)

// keepEnv makes the test binary a keeper: of whoever started it, or of somebody
// without privileges. ownerEnv makes it a process that has a command run, and is
// there to be killed.
const (
	keepEnv  = "PHAROS_PROBE_TEST_KEEP"
	ownerEnv = "PHAROS_PROBE_TEST_OWNER"
)

// testKeeper is the command line of a keeper.
var testKeeper = []string{"/usr/bin/env", keepEnv + "=same", "/proc/" + strconv.Itoa(os.Getpid()) + "/exe"}

// humbleKeeper is the command line of one whose user may do nothing special.
var humbleKeeper = []string{"/usr/bin/env", keepEnv + "=nobody", "/proc/" + strconv.Itoa(os.Getpid()) + "/exe"}

// keepForTests is the main function of the processes above; it returns false in all
// others.
func keepForTests() bool {
	if dir := os.Getenv(ownerEnv); dir != "" {
		own(dir)
		return true
	}
	switch os.Getenv(keepEnv) {
	case "":
		return false
	case "nobody":
		const nobody = 65534
		if err := dropTo(nobody); err != nil {
			panic(err)
		}
	}
	os.Unsetenv(keepEnv)
	if err := KeeperMain(os.Stdin, os.Stdout); err != nil {
		panic(err)
	}
	return true
}

func dropTo(id int) error {
	if err := syscall.Setgroups(nil); err != nil {
		return err
	}
	if err := syscall.Setgid(id); err != nil {
		return err
	}
	return syscall.Setuid(id)
}

// own has a command run that leaves a daemon, until it is killed.
func own(dir string) {
	c := Check{
		Target: health.Target{Service: "web", Site: "fra"}, Kind: Exec, Timeout: time.Minute,
		Exec: ExecCommand{Command: []string{"/bin/sh", "-c", daemon + `; while [ ! -e "$1/daemon" ]; do :; done; echo >"$1/ready"; sleep 1000`, "sh", dir}},
	}
	newCommands(newMetrics(), testKeeper).run(context.Background(), c)
}

// daemon forks twice, into a session of its own, and holds nothing of its parent's.
const daemon = `(setsid sh -c 'trap "" HUP TERM INT; echo $$ >"$0/daemon"; while :; do sleep 1000; done' "$1" </dev/null >/dev/null 2>&1 &)`

// relations returns the live processes that were told of a folder.
func relations(t *testing.T, dir string) (found []string) {
	t.Helper()
	lines, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range lines {
		line, err := os.ReadFile(file)
		if err != nil || !strings.Contains(string(line), dir) {
			continue
		}
		stat, err := os.ReadFile(filepath.Join(filepath.Dir(file), "stat"))
		if state, _, ok := parseStat(stat); err == nil && ok && state != 'Z' && state != 'X' {
			found = append(found, fmt.Sprintf("%s: %q", filepath.Base(filepath.Dir(file)), line))
		}
	}
	return found
}

// TestNothingSurvivesItsCheck: whatever a command starts, and however it tries to
// get away, has ended when the check has; for root and for anybody.
func TestNothingSurvivesItsCheck(t *testing.T) {
	if _, err := exec.LookPath("setsid"); err != nil {
		t.Fatal(err)
	}
	started := `; while [ ! -e "$1/daemon" ]; do :; done; `
	// Each generation starts the next in a session of its own, and ends.
	comet := `echo 'setsid sh "$0" & echo >"${0%/*}/daemon"' >"$1/comet"; setsid sh "$1/comet"` + started
	keepers := map[string][]string{"as we are": testKeeper}
	if os.Geteuid() == 0 {
		keepers["as nobody"] = humbleKeeper
	}
	for who, argv := range keepers {
		for _, tt := range []struct {
			name, script string
			want         Result
		}{
			{"session", daemon + started + `exit 3`, Result{Code: 3, Err: "exit status 3"}},
			{"sessions", daemon + ";" + daemon + ";" + daemon + started + `exit 3`, Result{Code: 3, Err: "exit status 3"}},
			{"chain", comet + `exit 3`, Result{Code: 3, Err: "exit status 3"}},
			{"timeout", daemon + started + `exec sleep 1000`, Result{Code: -1, Err: "timed out after 2s"}},
			{"chain at the timeout", comet + `exec sleep 1000`, Result{Code: -1, Err: "timed out after 2s"}},
			{"too much output", daemon + started + `yes`, Result{Err: "wrote more than 1024 KiB"}},
			{"up", daemon + started + `exit 0`, Result{}},
		} {
			t.Run(who+"/"+tt.name, func(t *testing.T) {
				t.Parallel()
				c := shell(t, tt.script)
				c.Timeout = 30 * time.Second
				if tt.want.Code < 0 {
					c.Timeout = 2 * time.Second
				}
				dir := c.Exec.Command[4]
				for _, d := range []string{dir, filepath.Dir(dir)} {
					if err := os.Chmod(d, 0o777); err != nil {
						t.Fatal(err)
					}
				}
				s := newCommands(newMetrics(), argv)
				defer s.close()
				ctx, cancel := context.WithTimeout(t.Context(), c.Timeout)
				defer cancel()
				got := s.run(ctx, c)
				if left := relations(t, dir); len(left) != 0 {
					t.Errorf("alive: %s", left)
				}
				if _, err := os.Stat(filepath.Join(dir, "daemon")); err != nil {
					t.Errorf("no daemon was started: %v", err)
				}
				if tt.want.Code < 0 {
					tt.want.Code = got.Code
				}
				if got.Inconclusive && strings.Contains(got.Err, "too slow") {
					return // a busy machine
				}
				if diff := cmp.Diff(tt.want, got); diff != "" {
					t.Error(diff)
				}
			})
		}
	}
}

// TestNothingSurvivesItsNode: a node that is killed leaves nothing of its checks.
func TestNothingSurvivesItsNode(t *testing.T) {
	dir := t.TempDir()
	owner := exec.Command("/proc/self/exe")
	owner.Env = append(os.Environ(), ownerEnv+"="+dir)
	owner.Stderr = os.Stderr
	if err := owner.Start(); err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(time.Millisecond) { // another process: nothing to wait on
		if _, err := os.Stat(filepath.Join(dir, "ready")); err == nil {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("never started")
		}
	}
	if err := owner.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = owner.Wait()
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(time.Millisecond) {
		left := relations(t, dir)
		if len(left) == 0 {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("alive: %s", left)
		}
	}
}

// TestDescendants: both ways of looking find the same.
func TestDescendants(t *testing.T) {
	cmd := exec.Command("/bin/sh", "-c", `sh -c 'sleep 1000 & sleep 1000 & echo ready; wait' & wait`)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
		_ = cmd.Wait()
	}()
	if _, err := fmt.Fscanln(out, new(string)); err != nil {
		t.Fatal(err)
	}
	quick, err := descendants(cmd.Process.Pid)
	if err != nil {
		t.Fatal(err)
	}
	slow, err := scanDescendants(cmd.Process.Pid)
	if err != nil {
		t.Fatal(err)
	}
	slices.Sort(quick)
	slices.Sort(slow)
	if len(slow) != 3 || !slices.Equal(quick, slow) {
		t.Errorf("%v and %v, want the same three", quick, slow)
	}
}

// TestKeeperIsKept: one keeper serves one command after the other; a dead one is
// named and replaced, and says nothing of the target.
func TestKeeperIsKept(t *testing.T) {
	s := newCommands(newMetrics(), testKeeper)
	defer s.close()
	c := shell(t, `echo $PPID; exit 1`)
	first, second := s.run(t.Context(), c), s.run(t.Context(), c)
	if first != second || first.Err == "" {
		t.Errorf("two keepers: %+v, %+v", first, second)
	}
	c.Exec.Command[2] = `kill -9 $PPID; exec sleep 1000`
	if r := s.run(t.Context(), c); !r.Inconclusive || !strings.Contains(r.Err, "the process that runs commands ended") || !strings.Contains(r.Err, "killed") {
		t.Errorf("killed keeper: %+v", r)
	}
	c.Exec.Command[2] = `echo $PPID; exit 1`
	if r := s.run(t.Context(), c); r.Code != 1 || r == first {
		t.Errorf("after it: %+v", r)
	}
	s.close()
	if len(s.keepers.idle) != 0 {
		t.Error("a keeper was kept")
	}
	if r := newCommands(newMetrics(), nil).run(t.Context(), c); !r.Inconclusive || !strings.Contains(r.Err, "nothing is set up to run commands") {
		t.Errorf("without keeper: %+v", r)
	}
}

func TestParseStat(t *testing.T) {
	for _, tt := range []struct {
		stat   string
		state  byte
		parent int
		ok     bool
	}{
		{"12 (sh) S 7 12 12 0 -1", 'S', 7, true},
		{"12 (a) Z 9 (b) R) D 7 12", 'D', 7, true},
		{"12 (sh) S", 0, 0, false},
		{"12 (sh) SS 7 1", 0, 0, false},
		{"12 (sh) S x 1", 'S', 0, false},
		{"", 0, 0, false},
	} {
		if state, parent, ok := parseStat([]byte(tt.stat)); state != tt.state || parent != tt.parent || ok != tt.ok {
			t.Errorf("%q: %q, %d, %v", tt.stat, state, parent, ok)
		}
	}
}

// BenchmarkExec is what a command costs with its keeper.
func BenchmarkExec(b *testing.B) {
	s := newCommands(newMetrics(), testKeeper)
	defer s.close()
	c := Check{Target: target("10.0.0.1:80"), Kind: Exec, Exec: ExecCommand{Command: []string{"/bin/true"}}}.WithDefaults()
	for b.Loop() {
		if r := s.run(b.Context(), c); !r.OK() {
			b.Fatal(r)
		}
	}
}
