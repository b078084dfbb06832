package lab

import (
	"bufio"
	"bytes"
	"context"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"

	"github.com/pharos-lb/pharos/bgp"
	"github.com/pharos-lb/pharos/internal/admin"
	"github.com/pharos-lb/pharos/internal/node"
)

// labVerb makes this test binary run a lab, for the test that kills it.
const labVerb = "lab-to-kill"

// TestMain makes this test binary be the node that the lab starts, and the BGP
// child that the node starts.
func TestMain(m *testing.M) {
	verb := ""
	if len(os.Args) > 1 {
		verb = os.Args[1]
	}
	var err error
	switch verb {
	case "run":
		err = beNode(os.Args[2:])
	case node.SpeakerVerb:
		err = bgp.ChildMain(context.Background(), os.Stdin, os.Stdout, os.Stderr)
	case labVerb:
		err = Run(context.Background(), Options{Binary: os.Args[0], Program: "pharos", ID: os.Args[2], ConfigFile: "testdata/three.yaml", Out: os.Stdout})
	case "tell-time":
		tellTime()
	default:
		os.Exit(m.Run())
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// beNode is `pharos run`.
func beNode(args []string) error {
	opts := node.Options{Version: "test", Log: slog.New(slog.NewTextHandler(os.Stderr, nil))}
	f := flag.NewFlagSet("run", flag.ContinueOnError)
	f.StringVar(&opts.ConfigFile, "config", "", "")
	f.StringVar(&opts.Name, "node", "", "")
	f.StringVar(&opts.StateDir, "state-dir", "", "")
	f.StringVar(&opts.Socket, "socket", "", "")
	if err := f.Parse(args); err != nil {
		return err
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	n, err := node.New(opts)
	if err != nil {
		return err
	}
	return n.Run(ctx)
}

// missing skips, except in CI.
func missing(t *testing.T, why string) {
	t.Helper()
	if os.Getenv("CI") == "true" {
		t.Fatal(why + ", and in CI nothing is skipped")
	}
	t.Skip(why)
}

// needLab skips where there can be no lab, except in CI.
func needLab(t *testing.T) {
	t.Helper()
	without := func(why string) { t.Helper(); missing(t, why) }
	if os.Getuid() != 0 {
		without("the lab needs root")
	}
	if _, err := findTool("nft"); err != nil {
		without("nft is not installed (Debian: nftables)")
	}
	if testing.Short() {
		t.Skip("a lab takes some seconds")
	}
}

// A screen takes what the lab says. Safe for concurrent use.
type screen struct {
	mu  sync.Mutex
	all bytes.Buffer
}

func (s *screen) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.all.Write(p)
}

func (s *screen) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.all.String()
}

// startLab starts the nodes of three.yaml and takes them down with the test.
func startLab(t *testing.T, id string) *Lab {
	t.Helper()
	return startLabOf(t, id, "testdata/three.yaml")
}

// startLabOf does so with the nodes of any configuration.
func startLabOf(t *testing.T, id, file string) *Lab {
	t.Helper()
	needLab(t)
	said := &screen{}
	l, err := New(Options{Binary: os.Args[0], Program: "pharos", ID: id, ConfigFile: file, Out: said})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			t.Log(said.String())
			for _, p := range l.nodes {
				data, _ := os.ReadFile(p.log())
				t.Logf("%s:\n%s", p.name, data)
			}
		}
		if err := l.Close(); err != nil {
			t.Error(err)
		}
		if err := l.Close(); err != nil {
			t.Errorf("a second Close: %v", err)
		}
	})
	if err := l.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	return l
}

// host is what the lab must leave as it is.
func host(t *testing.T) string {
	t.Helper()
	var b strings.Builder
	for _, file := range []string{"/proc/net/route", "/proc/net/ipv6_route", "/proc/net/dev", "/proc/sys/net/ipv4/ip_forward"} {
		data, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for line := range strings.Lines(string(data)) {
			fields := strings.Fields(line)
			switch {
			case file == "/proc/net/dev":
				fields = fields[:1] // the rest counts packets
			case file == "/proc/net/ipv6_route" && len(fields) > 9:
				fields = append(fields[:6:6], fields[9]) // so do two of these
			}
			fmt.Fprintln(&b, strings.Join(fields, " "))
		}
	}
	nft, err := findTool("nft")
	if err != nil {
		t.Fatal(err)
	}
	rules, err := exec.Command(nft, "list", "tables").Output()
	if err != nil {
		t.Fatal(err)
	}
	return b.String() + string(rules)
}

// leftovers are what a lab's name still stands for.
func leftovers(t *testing.T, id string) (out []string) {
	t.Helper()
	names, err := leftoverNamespaces(id)
	if err != nil {
		t.Fatal(err)
	}
	out = append(out, names...)
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(mounts)) {
		if strings.Contains(line, folderPath(id)+"/") || strings.Contains(line, "ph-"+id+"-") {
			out = append(out, line)
		}
	}
	if _, err := os.Stat(folderPath(id)); err == nil {
		out = append(out, folderPath(id))
	}
	commands, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range commands {
		if data, err := os.ReadFile(file); err == nil && bytes.Contains(data, []byte(folderPath(id)+"/")) {
			out = append(out, string(bytes.ReplaceAll(data, []byte{0}, []byte{' '})))
		}
	}
	return out
}

// do does one thing and fails the test if it cannot be done.
func do(t *testing.T, l *Lab, text string) {
	t.Helper()
	f, err := ParseFault(strings.Fields(text))
	if err == nil {
		_, err = l.Do(f)
	}
	if err != nil {
		t.Fatalf("%s: %v", text, err)
	}
}

// within waits for something that the fleet does by itself.
func within(t *testing.T, limit time.Duration, what string, ok func() bool) {
	t.Helper()
	start := time.Now()
	for !ok() {
		if time.Since(start) > limit {
			t.Fatalf("not within %s: %s", limit, what)
		}
		time.Sleep(20 * time.Millisecond) // the fleet has no event to wait for
	}
}

// answers asks one node about www.lab.test and returns the sites that it names,
// or "none".
func answers(t *testing.T, l *Lab, node, from string) string {
	t.Helper()
	addr, err := parseFrom(from)
	if err != nil {
		t.Fatal(err)
	}
	a, err := l.Query(t.Context(), Question{Name: "www.lab.test", From: addr, Node: node})
	if err != nil {
		t.Fatal(err)
	}
	if a[0].RCode == "" {
		return "none"
	}
	return strings.Join(a[0].Sites, " ")
}

// TestLab starts a fleet once and breaks it in every way.
func TestLab(t *testing.T) {
	needLab(t)
	defer goleak.VerifyNone(t)
	before := host(t)
	if l := startLab(t, "tlab"); t.Run("faults", func(t *testing.T) { testFaults(t, l) }) {
		if during := host(t); during != before {
			t.Errorf("the host is not as before:\n%s", cmp.Diff(before, during))
		}
		t.Run("second", func(t *testing.T) {
			if _, err := New(Options{ID: "tlab", ConfigFile: "testdata/three.yaml", Out: io.Discard}); err == nil || !strings.Contains(err.Error(), "running") {
				t.Errorf("a second lab of the same name: %v", err)
			}
			if _, err := Clean("tlab"); err == nil {
				t.Error("a running lab is cleaned away")
			}
			if removed, err := Clean(""); err != nil || strings.Contains(fmt.Sprint(removed), "tlab") {
				t.Errorf("a running lab is cleaned away: %v, %v", removed, err)
			}
		})
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	}
	if left := leftovers(t, "tlab"); len(left) > 0 {
		t.Errorf("left behind:\n%s", strings.Join(left, "\n"))
	}
	if after := host(t); after != before {
		t.Errorf("the host is not as before:\n%s", cmp.Diff(before, after))
	}
}

// testFaults has one row a fault: what is done, what is then so, and how it is undone.
func testFaults(t *testing.T, l *Lab) {
	const german, american = "46.4.0.1", "8.8.4.4" // the second is none that the layout foresaw
	within(t, 10*time.Second, "all sites are answered", func() bool {
		return answers(t, l, "sin1", german) == "fra" && answers(t, l, "sin1", american) == "iad"
	})
	for _, tt := range []struct {
		fault string
		so    func() bool
		undo  string
	}{
		{"cut client fra1", func() bool { return answers(t, l, "fra1", "") == "none" && answers(t, l, "iad1", "") != "none" }, "heal client fra1"},
		// sin would pass on to iad what it hears of fra.
		{"isolate sin; cut fra iad one-way", func() bool { return !l.heard(t, "iad1")["fra1"] && l.heard(t, "fra1")["iad1"] }, "heal"},
		{"isolate sin", func() bool { return answers(t, l, "sin1", "") == "none" }, "heal sin"},
		{"drop client iad1 100%", func() bool { return answers(t, l, "iad1", "") == "none" }, "heal"},
		{"kill fra1", func() bool { return answers(t, l, "fra1", "") == "none" }, "restart fra1"},
		{"freeze fra1", func() bool { return answers(t, l, "fra1", "") == "none" && l.frozen("fra1") }, "thaw fra1"},
		{"backend fra down", func() bool { return answers(t, l, "fra1", german) == "iad" }, "backend fra up"},
		{"clock iad1 +1h", func() bool { return l.skew(t, "iad1") == time.Hour }, "clock iad1 0s"},
		{"wipe sin1", func() bool { return answers(t, l, "sin1", "") != "none" }, "heal sin1"},
		{"fill-disk iad1", func() bool { return !l.writable("iad1") && answers(t, l, "iad1", "") != "none" }, "free-disk iad1"},
	} {
		for fault := range strings.SplitSeq(tt.fault, "; ") {
			do(t, l, fault)
		}
		within(t, 15*time.Second, tt.fault, tt.so)
		do(t, l, tt.undo)
		if !l.writable("iad1") || l.frozen("fra1") {
			t.Errorf("%s is not undone by %s", tt.fault, tt.undo)
		}
	}
	do(t, l, "heal")
	if _, err := l.Agree(t.Context(), AgreeWithin); err != nil {
		t.Error(err)
	}
	if crashed := l.crashes(); len(crashed) > 0 {
		t.Error(crashed)
	}
	if _, err := l.Do(Fault{Kind: FaultKill, A: "nobody"}); err == nil {
		t.Error("a node that does not exist was killed")
	}
	if _, err := l.Query(t.Context(), Question{Name: "www.lab.test", Node: "nobody"}); err == nil {
		t.Error("a node that does not exist was asked")
	}
}

// heard are the nodes that a node hears.
func (l *Lab) heard(t *testing.T, node string) map[string]bool {
	t.Helper()
	st, err := admin.NewClient(l.nodes[l.index[node]].socket()).Status(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	out := map[string]bool{}
	for _, m := range st.Members {
		out[m.Name] = m.Heard
	}
	return out
}

func (l *Lab) frozen(node string) bool { return l.nodes[l.index[node]].condition().frozen }

// writable reports whether a byte fits on a node's disk.
func (l *Lab) writable(node string) bool {
	name := filepath.Join(l.nodes[l.index[node]].state(), "probe")
	defer os.Remove(name)
	return os.WriteFile(name, make([]byte, 64<<10), 0o600) == nil
}

// skew starts a node again and returns how far the clock is off by which it
// says that it was started.
func (l *Lab) skew(t *testing.T, node string) time.Duration {
	t.Helper()
	do(t, l, "restart "+node)
	var off time.Duration
	within(t, 15*time.Second, node+" answers", func() bool {
		st, err := admin.NewClient(l.nodes[l.index[node]].socket()).Status(t.Context())
		if err == nil {
			off = time.Until(st.Started).Round(time.Minute)
		}
		return err == nil
	})
	return off
}

// TestPlay plays a script whose expectations come true, and two that do not.
func TestPlay(t *testing.T) {
	l := startLab(t, "tplay")
	play := func(text string) *Verdict {
		t.Helper()
		s, err := ParseScenario(strings.NewReader(text))
		if err != nil {
			t.Fatal(err)
		}
		v, err := l.Play(t.Context(), s)
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
	v := play(`expect within 10s name www.lab.test from 46.4.0.1 is fra
at 500ms backend fra down
expect within 10s name www.lab.test from 46.4.0.1 is iad
at 3s heal
expect within 10s name www.lab.test from 46.4.0.1 is fra
expect within 30s same plan
until 4s
expect always answered
expect never empty
expect never stale
`)
	if !v.OK() || v.Figures.Resolved < 50 {
		t.Errorf("%s", v.Text())
	}
	v = play("at 0s kill iad1\nexpect within 1s name www.lab.test from 46.4.0.1 at iad1 is fra\n" +
		"expect within 500ms name www.lab.test from 46.4.0.1 is sin")
	if len(v.Failed) != 2 || !strings.Contains(v.Text(), "FAILED line 3") {
		t.Errorf("expectations that cannot come true:\n%s", v.Text())
	}
}

// TestKilledLab: kill -9 leaves things behind, and the next one finds them.
func TestKilledLab(t *testing.T) {
	needLab(t)
	const id = "tkill"
	before := host(t)
	cmd := exec.Command(os.Args[0], labVerb, id)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewScanner(out)
	for lines.Scan() && !strings.Contains(lines.Text(), "Ctrl-C") {
		t.Log(lines.Text())
	}
	st, err := NewClient(id).Status(t.Context())
	if err != nil || len(st.Nodes) != 3 {
		t.Errorf("status over the socket: %v, %v", st, err)
	}
	if did, err := NewClient(id).Do(t.Context(), Fault{Kind: FaultFreeze, A: "fra1"}); err != nil || !strings.Contains(did, "frozen") {
		t.Errorf("freeze over the socket: %q, %v", did, err)
	}
	if err := cmd.Process.Signal(syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	cmd.Wait() // killed
	if left := leftovers(t, id); len(left) == 0 {
		t.Error("nothing is left behind: is the check right?")
	}
	removed, err := Clean(id)
	if err != nil || len(removed) != 1 {
		t.Errorf("clean: %v, %v", removed, err)
	}
	if left := leftovers(t, id); len(left) > 0 {
		t.Errorf("left behind:\n%s", strings.Join(left, "\n"))
	}
	if after := host(t); after != before {
		t.Errorf("the host is not as before:\n%s", cmp.Diff(before, after))
	}
}

// tellTime writes the wall and the monotonic clock whenever a line comes.
func tellTime() {
	start := time.Now()
	fmt.Println(time.Now().Unix(), int64(time.Since(start)/time.Second))
	lines := bufio.NewScanner(os.Stdin)
	for lines.Scan() {
		fmt.Println(time.Now().Unix(), int64(time.Since(start)/time.Second))
	}
}

// TestClock shifts the wall clock of a process that runs, there and back, and
// leaves its monotonic clock and ours alone.
func TestClock(t *testing.T) {
	needLab(t)
	if !canShift {
		t.Skip(errNoShift)
	}
	cmd := exec.Command(os.Args[0], "tell-time")
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer cmd.Wait()
	defer in.Close()
	lines := bufio.NewScanner(out)
	lines.Scan()
	for _, offset := range []time.Duration{time.Hour, -365 * 24 * time.Hour, 0} {
		if err := shiftClock(cmd.Process.Pid, offset, false); err != nil {
			t.Fatal(err)
		}
		fmt.Fprintln(in)
		lines.Scan()
		wall, mono, _ := strings.Cut(lines.Text(), " ")
		got, err := strconv.ParseInt(wall, 10, 64)
		if off := time.Duration(got-time.Now().Unix()) * time.Second; err != nil || (off-offset).Abs() > 5*time.Second {
			t.Errorf("offset %s, the clock is off by %s (%v)", offset, off, err)
		}
		if seconds, err := strconv.Atoi(mono); err != nil || seconds > 30 || seconds < 0 {
			t.Errorf("offset %s: the monotonic clock jumped by %s s", offset, mono)
		}
	}
}
