package probe

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestFileFeed(t *testing.T) {
	now := time.Now()
	for _, tt := range []struct {
		name, text string
		age        time.Duration
		want       Result
	}{
		{"up", "up\n", 0, Result{}},
		{"up without end of line", "up", 0, Result{}},
		{"further lines", "up\r\ndown\n", 0, Result{}},
		{"down", "down\n", 0, Result{Err: "the file says down"}},
		{"down with a reason", "down  for \x01 maintenance \n", 0, Result{Err: "the file says down: for   maintenance"}},
		{"weight", "weight 35\n", 0, Result{Weight: 35, HasWeight: true}},
		{"weight 0", "weight 0\n", 0, Result{HasWeight: true}},
		{"weight of nonsense", "weight 101\n", 0, Result{Inconclusive: true, Err: `file: "weight 101" is not up, down or weight N`}},
		{"nonsense", "UP", 0, Result{Inconclusive: true, Err: `file: "UP" is not up, down or weight N`}},
		{"being written", "", 0, Result{Inconclusive: true, Err: `file: "" is not up, down or weight N`}},
		{"long", "up" + strings.Repeat("x", 1<<20), 0, Result{Inconclusive: true, Err: `file: "up` + strings.Repeat("x", 38) + `" is not up, down or weight N`}},
		{"old", "down\n", 61 * time.Second, Result{Inconclusive: true, Err: "file: written 1m1s ago, at most 1m0s wanted"}},
		{"just fresh", "down\n", 55 * time.Second, Result{Err: "the file says down"}},
		{"of tomorrow", "up\n", -24 * time.Hour, Result{Inconclusive: true, Err: "file: written 24h0m0s in the future"}},
	} {
		path := filepath.Join(t.TempDir(), "web-10.0.0.1:80")
		if err := os.WriteFile(path, []byte(tt.text), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Chtimes(path, time.Time{}, now.Add(-tt.age)); err != nil {
			t.Fatal(err)
		}
		c := Check{Target: target("10.0.0.1:80"), Kind: File, File: FileFeed{Path: filepath.Join(filepath.Dir(path), "{service}-{address}"), MaxAge: time.Minute}}
		if diff := cmp.Diff(tt.want, readFeed(c)); diff != "" {
			t.Errorf("%s: %s", tt.name, diff)
		}
	}
}

// TestFileFeedNeverBlocks: whatever is at the path.
func TestFileFeedNeverBlocks(t *testing.T) {
	dir := t.TempDir()
	fifo := filepath.Join(dir, "fifo")
	if err := syscall.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	loop := filepath.Join(dir, "loop")
	if err := os.Symlink(loop, loop); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]string{
		fifo: "not a regular file", dir: "not a regular file", "/dev/zero": "not a regular file",
		loop: "cannot open: too many levels", filepath.Join(dir, "none"): "cannot open: no such file",
	} {
		r := readFeed(Check{Target: target("10.0.0.1:80"), Kind: File, File: FileFeed{Path: path, MaxAge: time.Minute}})
		if !r.Inconclusive || !strings.Contains(r.Err, want) {
			t.Errorf("%s: %+v, want %q", path, r, want)
		}
	}
}

// FuzzFeed: a line means one of three things or nothing, and never lets more out
// than was put in.
func FuzzFeed(f *testing.F) {
	for _, line := range []string{"up", "down", "down why", "weight 5", "weight 100", "weight -1", "weight", " weight 0", "", "up up"} {
		f.Add(line)
	}
	f.Fuzz(func(t *testing.T, line string) {
		r := feedSays(line)
		switch {
		case r.OK() && !r.HasWeight && strings.TrimSpace(line) != "up",
			r.OK() && r.HasWeight && (!strings.HasPrefix(strings.TrimSpace(line), "weight ") || r.Weight > 100),
			!r.OK() && !r.Inconclusive && !strings.HasPrefix(line, "down"),
			r.Inconclusive && (line == "up" || line == "down"),
			len(r.Err) > maxErrLen+8, strings.ContainsFunc(r.Err, func(c rune) bool { return c < ' ' }):
			t.Errorf("%q: %+v", line, r)
		}
	})
}

// TestCombine: o good, f failed, ? silent, with weights 1 each unless given.
func TestCombine(t *testing.T) {
	for _, tt := range []struct {
		kind    Kind
		need    int
		found   string
		weights []int
		want    string // o, f or ?, and for f and ? the part that is named
	}{
		{All, 0, "ooo", nil, "o"},
		{All, 0, "ofo", nil, "f2"},
		{All, 0, "off", nil, "f2"},
		{All, 0, "o?o", nil, "?2"},
		{All, 0, "?fo", nil, "f2"},
		{Any, 0, "ffo", nil, "o"},
		{Any, 0, "f?o", nil, "o"},
		{Any, 0, "fff", nil, "f1"},
		{Any, 0, "f?f", nil, "?2"},
		{Any, 0, "??", nil, "?1"},
		{AtLeast, 2, "oof", nil, "o"},
		{AtLeast, 2, "off", nil, "f2"},
		{AtLeast, 2, "of?", nil, "?3"},
		{AtLeast, 2, "ff?", nil, "f1"},
		{AtLeast, 5, "off", []int{5, 3, 1}, "o"},
		{AtLeast, 5, "foo", []int{5, 3, 1}, "f1"},
		{AtLeast, 5, "f?o", []int{5, 4, 1}, "?2"},
		{AtLeast, 5, "f?o", []int{5, 3, 1}, "f1"},
	} {
		c := Check{Target: target("10.0.0.1:80"), Kind: tt.kind, Need: tt.need}
		for i := range tt.found {
			p := Part{Check: Check{Kind: HTTP, Path: "/" + string(rune('1'+i))}}
			if tt.weights != nil {
				p.Weight = tt.weights[i]
			}
			c.Of = append(c.Of, p)
		}
		if err := c.Validate(); err != nil {
			t.Fatal(err)
		}
		got := combine(t.Context(), c.WithDefaults(), func(_ context.Context, part Check) Result {
			if part.Target != c.Target || part.Timeout != 2*time.Second {
				t.Errorf("part %+v", part)
			}
			switch i := part.Path[1] - '1'; tt.found[i] {
			case 'o':
				return Result{Code: 200 + int(i)}
			case 'f':
				return Result{Code: 503, Err: "status 503"}
			default:
				return Result{Inconclusive: true, Err: "no ports"}
			}
		})
		var want Result
		number := tt.want[1:]
		if len(tt.found) > 1 {
			number = "http #" + number
		}
		switch tt.want[0] {
		case 'o':
			want.Code = 200 + strings.IndexByte(tt.found, 'o')
		case 'f':
			want.Code, want.Err = 503, number+": status 503"
		case '?':
			want.Inconclusive, want.Err = true, number+": no ports"
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%v %d of %s: %s", tt.kind, tt.need, tt.found, diff)
		}
	}
}

// TestCombineWeight: the smallest one counts; a part of another kind is named by it.
func TestCombineWeight(t *testing.T) {
	c := Check{Kind: All, Of: []Part{{1, Check{Kind: HTTP}}, {1, Check{Kind: TCP}}, {1, Check{Kind: Exec}}}}
	found := []Result{{Weight: 70, HasWeight: true}, {}, {Weight: 30, HasWeight: true}}
	if diff := cmp.Diff(Result{Weight: 30, HasWeight: true}, judge(c, found)); diff != "" {
		t.Error(diff)
	}
	found[1].Err = "connect refused"
	if diff := cmp.Diff(Result{Err: "tcp: connect refused"}, judge(c, found)); diff != "" {
		t.Error(diff)
	}
}

// TestCombineIsConcurrent: the parts share one time.
func TestCombineIsConcurrent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := Check{Target: target("10.0.0.1:80"), Kind: Any, Of: make([]Part, maxParts)}.WithDefaults()
		began := time.Now()
		combine(t.Context(), c, func(context.Context, Check) Result {
			time.Sleep(time.Second)
			return Result{}
		})
		if took := time.Since(began); took != time.Second {
			t.Errorf("took %v", took)
		}
	})
}

// nested is an All of an All of … so many levels.
func nested(levels int) Check {
	c := Check{Target: target("10.0.0.1:80"), Kind: TCP}
	for range levels {
		c = Check{Target: c.Target, Kind: All, Of: []Part{{Check: c}}}
	}
	return c
}

func TestValidateLocal(t *testing.T) {
	for _, tt := range []struct {
		name string
		c    Check
		want string
	}{
		{"no command", Check{Kind: Exec}, "want the absolute path of a program"},
		{"relative command", Check{Kind: Exec, Exec: ExecCommand{Command: []string{"sh"}}}, "want the absolute path"},
		{"placeholder as program", Check{Kind: Exec, Exec: ExecCommand{Command: []string{"/bin/{service}"}}}, "want the absolute path"},
		{"NUL", Check{Kind: Exec, Exec: ExecCommand{Command: []string{"/bin/sh", "a\x00b"}}}, "none of them 0"},
		{"arguments", Check{Kind: Exec, Exec: ExecCommand{Command: append([]string{"/bin/sh"}, make([]string, maxArgs)...)}}, "65 arguments, at most 64"},
		{"user", Check{Kind: Exec, Exec: ExecCommand{Command: []string{"/bin/sh"}, User: "a:b"}}, "not a user"},
		{"no file", Check{Kind: File}, "want an absolute path"},
		{"age", Check{Kind: File, File: FileFeed{Path: "/x", MaxAge: -1}}, "file max age -1ns"},
		{"no parts", Check{Kind: All}, "all: no parts"},
		{"deep", nested(maxDepth + 1), "nested deeper than 3"},
		{"very deep", nested(10_000), "nested deeper than 3"},
		{"many", Check{Kind: Any, Of: make([]Part, maxParts+1)}, "17 parts in all, at most 16"},
		{"bad part", Check{Kind: Any, Of: []Part{{}, {Check: Check{Kind: Exec}}}}, "part 2: "},
		{"passive part", Check{Kind: Any, Of: []Part{{Check: Check{Kind: Passive}}}}, "traffic is no part"},
		{"weight of a part", Check{Kind: Any, Of: []Part{{Weight: -1}}}, "weight -1"},
		{"need", Check{Kind: AtLeast, Need: 3, Of: make([]Part, 2)}, "need 3: want 1 to the sum of the weights, 2"},
		{"no need", Check{Kind: AtLeast, Of: make([]Part, 2)}, "need 0"},
		{"passive fall", Check{Passive: PassiveRule{Fall: 1001}}, "passive fall 1001"},
		{"passive for", Check{Kind: Passive, Passive: PassiveRule{For: time.Microsecond}}, "passive for 1µs"},
		{"flap limit", Check{Flap: FlapRule{Limit: 1}}, "flap limit 1"},
		{"flap half-life", Check{Flap: FlapRule{Limit: 5, HalfLife: 1}}, "flap half-life 1ns"},
	} {
		tt.c.Target = target("10.0.0.1:80")
		if err := tt.c.Validate(); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: got %v, want %q", tt.name, err, tt.want)
		}
	}
	for _, c := range []Check{
		{Kind: Passive},
		nested(maxDepth),
		{Kind: Exec, Exec: ExecCommand{Command: []string{"/bin/sh"}}},
		{Kind: File, File: FileFeed{Path: "/run/{service}"}},
		{Flap: FlapRule{Limit: 6}},
	} {
		c.Target = target("10.0.0.1:80")
		if err := c.Validate(); err != nil {
			t.Error(err)
		}
	}
}

// TestChecksAreCopied: a caller who goes on writing to his parts changes nothing.
func TestChecksAreCopied(t *testing.T) {
	inner := []Part{{Check: Check{Kind: HTTP, Headers: []Header{{"A", "b"}}}}}
	c := Check{Target: target("10.0.0.1:80"), Kind: All, Of: []Part{{Check: Check{Kind: Any, Of: inner}}}}
	r, err := New(Options{Checks: []Check{c}})
	if err != nil {
		t.Fatal(err)
	}
	inner[0].Check.Headers[0].Name, inner[0].Check.Kind, c.Of[0].Weight = "X", TCP, 9
	held := r.order[0].check.Of[0]
	if p := held.Check.Of[0].Check; held.Weight != 1 || p.Kind != HTTP || p.Headers[0].Name != "A" {
		t.Errorf("got %+v", held)
	}
	if inner[0].Weight != 0 {
		t.Error("defaults were written into the caller's parts")
	}
}

// TestFeedErrorsAreShort: the path is in the configuration, not in the error.
func TestFeedErrorsAreShort(t *testing.T) {
	_, err := firstLine("/no/such/folder/file", time.Minute, time.Now())
	if !errors.Is(err, os.ErrNotExist) || strings.Contains(err.Error(), "folder") {
		t.Errorf("got %v", err)
	}
}
