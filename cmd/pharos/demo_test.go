package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/pharos-lb/pharos/internal/admin"
	"github.com/pharos-lb/pharos/internal/demo"
)

// Bounds of the demo's test. The promises are 5 s for a broken site and
// 10 s for a killed node; they are asserted as they stand.
const (
	demoUp     = 90 * time.Second
	afterBreak = 5 * time.Second
	afterKill  = 10 * time.Second
	afterHeal  = 15 * time.Second
)

// A runningDemo is `pharos demo` in a process of its own.
type runningDemo struct {
	t      *testing.T
	binary string
	env    []string
	cmd    *exec.Cmd
}

// pharos runs a verb and returns what it printed.
func (d *runningDemo) pharos(args ...string) (stdout string, code int) {
	d.t.Helper()
	cmd := exec.Command(d.binary, args...)
	cmd.Env = d.env
	out, err := cmd.Output()
	if err != nil && cmd.ProcessState == nil {
		d.t.Fatal(err)
	}
	return string(out), cmd.ProcessState.ExitCode()
}

func (d *runningDemo) status() demo.Status {
	d.t.Helper()
	out, code := d.pharos("demo", "status", "-o", "json")
	var st demo.Status
	if err := json.Unmarshal([]byte(out), &st); err != nil || code != 0 {
		d.t.Fatalf("demo status: code %d, %v: %s", code, err, out)
	}
	return st
}

// nodeStatus is what the first node says of itself.
func (d *runningDemo) nodeStatus() admin.Status {
	d.t.Helper()
	out, _ := d.pharos("status", "-o", "json")
	var st admin.Status
	if err := json.Unmarshal([]byte(out), &st); err != nil {
		d.t.Fatalf("status: %v: %s", err, out)
	}
	return st
}

// within waits for something that the fleet does by itself and says how long it took.
func (d *runningDemo) within(limit time.Duration, what string, ok func() bool) {
	d.t.Helper()
	start := time.Now()
	for !ok() {
		if time.Since(start) > limit {
			out, _ := d.pharos("demo", "status")
			d.t.Fatalf("not within %s: %s\n%s", limit, what, out)
		}
	}
	d.t.Logf("%s: %s", what, time.Since(start).Round(10*time.Millisecond))
}

// dig asks the demo with the real dig.
func dig(t *testing.T, args ...string) string {
	t.Helper()
	out, err := exec.Command("dig", append([]string{"@127.0.0.1", "-p", "5300", "+tries=3", "+time=1"}, args...)...).CombinedOutput()
	if err != nil {
		t.Logf("dig %v: %v: %s", args, err, out)
	}
	return string(out)
}

func short(t *testing.T, subnet string, more ...string) string {
	return strings.TrimSpace(dig(t, append([]string{"www.demo.test", "+short", "+subnet=" + subnet}, more...)...))
}

func needDig(t *testing.T) {
	if _, err := exec.LookPath("dig"); err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatal("dig is missing: .ci/install brings it")
		}
		t.Skip("dig is not installed (Debian: dnsutils)")
	}
}

// startDemo runs the demo until its first screen.
func startDemo(t *testing.T) *runningDemo {
	t.Helper()
	binary, err := exec.LookPath("pharos") // testscript's: this test binary
	if err != nil {
		t.Fatal(err)
	}
	tmp, err := os.MkdirTemp("", "pharos-demo-test") // short, for socket paths
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(tmp) })
	d := &runningDemo{t: t, binary: binary, env: append(os.Environ(), "TMPDIR="+tmp)}
	d.cmd = exec.Command(binary, "demo")
	d.cmd.Env = d.env
	d.cmd.Stderr = os.Stderr
	out, err := d.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := d.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	lines := make(chan string, 1000)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		defer close(lines)
		for s := bufio.NewScanner(out); s.Scan(); {
			select {
			case lines <- s.Text():
			default:
			}
		}
	}()
	t.Cleanup(func() {
		d.cmd.Process.Signal(syscall.SIGTERM)
		<-ended
		d.cmd.Wait()
		checkNothingLeft(t, tmp)
	})
	limit := time.After(demoUp)
	for {
		select {
		case line, ok := <-lines:
			if !ok {
				t.Fatal("the demo ended before its first screen")
			}
			if strings.Contains(line, "Try, in a second terminal") {
				return d
			}
		case <-limit:
			t.Fatalf("no first screen within %s", demoUp)
		}
	}
}

// checkNothingLeft wants no files, no processes and no open ports.
func checkNothingLeft(t *testing.T, tmp string) {
	t.Helper()
	if left, _ := filepath.Glob(filepath.Join(tmp, "pharos-demo-*")); len(left) > 0 {
		t.Errorf("the demo left %v", left)
	}
	for _, addr := range []string{"127.0.0.1:5300", "127.1.1.80:8080", "127.1.1.254:1790", "127.1.2.1:7946"} {
		l, err := net.Listen("tcp", addr)
		if err != nil {
			t.Errorf("the demo left %s open: %v", addr, err)
			continue
		}
		l.Close()
	}
	procs, _ := filepath.Glob("/proc/[0-9]*/cmdline")
	for _, p := range procs {
		if line, err := os.ReadFile(p); err == nil && strings.Contains(string(line), tmp) {
			t.Errorf("the demo left the process %q", strings.ReplaceAll(string(line), "\x00", " "))
		}
	}
}

func body(addr string) string {
	client := &http.Client{Timeout: 3 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
	resp, err := client.Get("http://" + addr + ":8080/")
	if err != nil {
		return err.Error()
	}
	defer resp.Body.Close()
	b, _ := io.ReadAll(resp.Body)
	return string(b)
}

// TestDemo is the whole product on one machine: what README promises.
func TestDemo(t *testing.T) {
	needDig(t)
	d := startDemo(t)
	t.Run("three places, three answers", d.testAnswers)
	t.Run("a second demo is refused", d.testSecondDemo)
	t.Run("broken site", d.testBrokenSite)
	t.Run("broken backend", d.testBrokenBackend)
	t.Run("killed node", d.testKilledNode)
	t.Run("hung node", d.testHungNode)
	t.Run("stop", func(t *testing.T) {
		if out, code := d.pharos("demo", "stop"); code != 0 {
			t.Errorf("stop: code %d: %s", code, out)
		}
	})
}

func (d *runningDemo) testAnswers(t *testing.T) {
	for _, tt := range []struct{ subnet, vip, site string }{
		{"46.4.0.0/24", "127.1.1.80", "fra"}, {"8.8.8.0/24", "127.1.2.80", "iad"}, {"203.116.0.0/24", "127.1.3.80", "sin"},
	} {
		if got := short(t, tt.subnet); got != tt.vip {
			t.Errorf("%s: got %q, want %s", tt.subnet, got, tt.vip)
		}
		if got := short(t, tt.subnet, "+tcp"); got != tt.vip {
			t.Errorf("%s over TCP: got %q, want %s", tt.subnet, got, tt.vip)
		}
		if got := body(tt.vip); !strings.Contains(got, "site "+tt.site) {
			t.Errorf("curl %s: got %q, want the site's name", tt.vip, got)
		}
		scope := regexp.MustCompile(`CLIENT-SUBNET: ` + regexp.QuoteMeta(tt.subnet) + `/([0-9]+)`)
		if got := scope.FindStringSubmatch(dig(t, "www.demo.test", "+subnet="+tt.subnet)); got == nil || got[1] == "0" {
			t.Errorf("%s: got the ECS scope %v, want one above 0", tt.subnet, got)
		}
	}
	if st := d.status(); len(st.Sites) != 3 || !st.Sites[0].Route || !st.Sites[1].Route || !st.Sites[2].Route {
		t.Errorf("a router lacks the route: %+v", st)
	}
	if out, code := d.pharos("status"); code != 0 || !strings.Contains(out, "healthy") {
		t.Errorf("status of a healthy node: code %d\n%s", code, out)
	}
	if out, code := d.pharos("reload"); code != 0 {
		t.Errorf("reload: code %d\n%s", code, out)
	}
	before := d.nodeStatus().Config.LastTry
	if err := syscall.Kill(d.status().Sites[0].PID, syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
	d.within(afterBreak, "SIGHUP reloads", func() bool {
		st := d.nodeStatus()
		return st.Config.LastTry.After(before) && st.Config.LastError == "" && st.State == "serving"
	})
}

func (d *runningDemo) testSecondDemo(t *testing.T) {
	cmd := exec.Command(d.binary, "demo")
	cmd.Env = d.env
	out, err := cmd.CombinedOutput()
	if err == nil || !strings.Contains(string(out), "a demo is already running") {
		t.Errorf("same user: got %v: %s", err, out)
	}
	cmd = exec.Command(d.binary, "demo")
	cmd.Env = append(os.Environ(), "TMPDIR="+t.TempDir()) // as another user would
	out, err = cmd.CombinedOutput()
	if err == nil || !strings.Contains(string(out), "something else uses them") {
		t.Errorf("another user: got %v: %s", err, out)
	}
	if got := short(t, "46.4.0.0/24"); got != "127.1.1.80" {
		t.Errorf("the first demo suffered: %q", got)
	}
}

func (d *runningDemo) testBrokenSite(t *testing.T) {
	d.t = t
	if _, code := d.pharos("demo", "break", "fra"); code != 0 {
		t.Fatal("break fra failed")
	}
	d.within(afterBreak, "Europe is answered elsewhere and the router has lost the route", func() bool {
		return short(t, "46.4.0.0/24") == "127.1.2.80" && !d.status().Sites[0].Route
	})
	out, code := d.pharos("explain", "www.demo.test", "--from", "46.4.0.1")
	if code != 0 || !strings.Contains(out, "0 of 2 backends up") {
		t.Errorf("explain does not say why: code %d\n%s", code, out)
	}
	if out, code := d.pharos("status"); code != 2 {
		t.Errorf("status while degraded: code %d, want 2\n%s", code, out)
	}
	d.heal("fra")
}

func (d *runningDemo) heal(what ...string) {
	d.t.Helper()
	if out, code := d.pharos(append([]string{"demo", "heal"}, what...)...); code != 0 {
		d.t.Fatalf("heal: %s", out)
	}
	d.within(afterHeal, "all is well again", func() bool {
		st := d.status()
		for _, s := range st.Sites {
			if !s.Route || s.State != "serving" {
				return false
			}
		}
		return short(d.t, "46.4.0.0/24") == "127.1.1.80"
	})
}

func (d *runningDemo) testBrokenBackend(t *testing.T) {
	d.t = t
	d.pharos("demo", "break", "fra-b1")
	d.within(afterBreak, "only the other backend serves", func() bool {
		for range 6 {
			if !strings.Contains(body("127.1.1.80"), "fra-b2") {
				return false
			}
		}
		return true
	})
	if got := short(t, "46.4.0.0/24"); got != "127.1.1.80" {
		t.Errorf("one backend of two moved the site: %q", got)
	}
	d.heal()
}

func (d *runningDemo) testKilledNode(t *testing.T) {
	d.t = t
	pid := d.status().Sites[0].PID
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	d.within(afterKill, "Europe is answered elsewhere and the router has lost the route", func() bool {
		return short(t, "46.4.0.0/24") == "127.1.2.80" && !d.status().Sites[0].Route
	})
	for i := range 20 { // every query finds a living node
		if got := short(t, fmt.Sprintf("46.4.%d.0/24", i)); got != "127.1.2.80" {
			t.Errorf("query %d: got %q", i, got)
		}
	}
	d.heal("fra1")
}

// A hung node is not silent about itself: the others find its VIP dead, and its
// own speaker's lease runs out.
func (d *runningDemo) testHungNode(t *testing.T) {
	d.t = t
	pid := d.status().Sites[0].PID
	if err := syscall.Kill(pid, syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	defer syscall.Kill(pid, syscall.SIGCONT)
	d.within(afterKill, "the router has lost the route, and the others answer elsewhere", func() bool {
		st := d.status()
		return !st.Sites[0].Route && st.Clients[0].Site == "iad" && st.Sites[1].State == "serving"
	})
	if err := syscall.Kill(pid, syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
	d.heal("fra1")
}
