package bgp

import (
	"bufio"
	"fmt"
	"io"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

// birdProgram returns BIRD's path. Without BIRD the test is skipped, except in CI.
func birdProgram(t *testing.T) string {
	t.Helper()
	path, err := exec.LookPath("bird")
	if err != nil {
		if _, statErr := os.Stat("/usr/sbin/bird"); statErr == nil {
			return "/usr/sbin/bird"
		}
		if os.Getenv("CI") == "true" {
			t.Fatal("bird is not installed, and in CI nothing is skipped")
		}
		t.Skip("bird is not installed (Debian: bird2)")
	}
	return path
}

const birdConfig = `
log stderr all;
debug protocols { states, routes };
router id %[2]s;
protocol device { scan time 60; }
protocol bgp pharos {
	local %[2]s port %[3]d as 64496;
	neighbor %[1]s port %[3]d as 64500;
	strict bind yes;
	multihop 2;
	error wait time 1, 2;
	connect delay time 1;
	graceful restart aware;
	ipv4 {
		import filter { if (64500, 7) ~ bgp_community && bgp_med = 50 && bgp_path ~ [= 64500 =] then accept; reject; };
		export none;
	};
	ipv6 { import all; export none; };
}
`

// A bird is one running BIRD and what it logs.
type bird struct {
	t     *testing.T
	lines chan string
	seen  []string
	kill  func()

	control, client string // BIRD's socket and its command line
}

func startBird(t *testing.T, l *lab, host byte) *bird {
	t.Helper()
	return runBird(t, fmt.Sprintf(birdConfig, l.addr(1), l.addr(host), l.port))
}

func runBird(t *testing.T, config string) *bird {
	t.Helper()
	program := birdProgram(t)
	dir := t.TempDir()
	file := filepath.Join(dir, "bird.conf")
	if err := os.WriteFile(file, []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	control := filepath.Join(dir, "bird.ctl")
	cmd := exec.Command(program, "-f", "-c", file, "-s", control, "-P", filepath.Join(dir, "bird.pid"))
	stderr, err := cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	b := &bird{t: t, lines: make(chan string, 10_000), control: control, client: program + "c"}
	done := make(chan struct{})
	go func() {
		defer close(done)
		defer close(b.lines)
		b.read(stderr)
	}()
	stopped := false
	b.kill = func() {
		if !stopped {
			stopped = true
			_ = cmd.Process.Kill()
			<-done
			_ = cmd.Wait()
		}
	}
	t.Cleanup(b.kill)
	return b
}

// ask returns BIRD's answer to a command, its white space made single; ok is false while BIRD does not listen yet.
func (b *bird) ask(command ...string) (answer string, ok bool) {
	b.t.Helper()
	out, err := exec.Command(b.client, append([]string{"-s", b.control}, command...)...).CombinedOutput()
	answer = strings.Join(strings.Fields(string(out)), " ")
	return answer, err == nil || strings.Contains(answer, "Network not found")
}

// awaitTable waits until BIRD's answer to a command has all of the texts in it, and none of those that begin with "!".
func (b *bird) awaitTable(command []string, texts ...string) {
	b.t.Helper()
	deadline := time.Now().Add(patience)
	for {
		got, ok := b.ask(command...)
		missing := slices.IndexFunc(texts, func(text string) bool {
			rest, not := strings.CutPrefix(text, "!")
			return strings.Contains(got, rest) == not
		})
		if ok && missing < 0 {
			return
		}
		if time.Now().After(deadline) {
			b.t.Fatalf("waited in vain for %q in BIRD's answer to %v:\n%s", texts[max(0, missing)], command, got)
		}
		time.Sleep(50 * time.Millisecond) // BIRD has no way to be told of changes
	}
}

func (b *bird) read(r io.Reader) {
	scanner := bufio.NewScanner(r)
	for scanner.Scan() {
		select {
		case b.lines <- scanner.Text():
		default: // the test stopped listening
		}
	}
}

// await waits for a line of BIRD's log and returns how long that took.
func (b *bird) await(pattern string) time.Duration {
	b.t.Helper()
	began := time.Now()
	re := regexp.MustCompile(pattern)
	deadline := time.After(patience)
	for {
		select {
		case line, ok := <-b.lines:
			if !ok {
				b.t.Fatalf("bird ended; log:\n%s", strings.Join(b.seen, "\n"))
			}
			b.seen = append(b.seen, line)
			if re.MatchString(line) {
				return time.Since(began)
			}
		case <-deadline:
			b.t.Fatalf("waited in vain for %q in bird's log:\n%s", pattern, strings.Join(b.seen, "\n"))
		}
	}
}

// TestBird holds the speaker against an independent implementation.
func TestBird(t *testing.T) {
	l := newLab(t)
	b := startBird(t, l, 2)
	p := l.peer(2)
	p.Multihop = 2
	c := l.config()
	c.NextHop6 = netip.MustParseAddr("2001:db8::1")
	v4 := Route{Prefix: anycast, Attributes: Attributes{Communities: []uint32{64500<<16 | 7}, MED: 50}}
	v6 := Route{Prefix: anycast6}
	g := l.speaker(Options{Config: c, Peers: []Peer{p}}, v4)
	const added, removed = `pharos\.ipv4 > added \[best\] 192\.0\.2\.0/24`, `pharos\.ipv4 > removed .*192\.0\.2\.0/24`
	b.await(added)

	g.set(v4, v6)
	b.await(`pharos\.ipv6 > added \[best\] 2001:db8:1::/48`)
	meter := measureStalls()
	g.set(v6)
	meter.atMost(t, b.await(removed), time.Second)
	g.set(v4)
	b.await(`pharos\.ipv6 > removed .*2001:db8:1::/48`)

	if err := syscall.Kill(g.Status().Child.PID, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	b.await(removed)
	b.await(added)

	// BIRD restarts: it gets the route again.
	b.kill()
	g.await("the loss of the session", func(s Status) bool { return s.Peers[0].State != "established" })
	b = startBird(t, l, 2)
	b.await(added)

	g.stop()
	b.await(removed)
}
