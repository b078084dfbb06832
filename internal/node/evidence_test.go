package node

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math"
	"net/netip"
	"strings"
	"testing"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"

	"github.com/pharos-lb/pharos/internal/health"
	"github.com/pharos-lb/pharos/internal/health/probe"
)

func TestFindingOfAProbe(t *testing.T) {
	now := time.Now()
	target := health.Target{Kind: health.KindBackend, Service: "web", Site: "a", Addr: netip.MustParseAddrPort("127.9.1.3:80")}
	state := probe.State{Target: target, Status: health.StatusDown, Streak: 3, Weight: 50, Flapping: true}
	state.Last.At, state.Last.Latency, state.Last.Code, state.Last.Err = now.Add(-2*time.Second), 1500*time.Microsecond, 503, "bad\n"+strings.Repeat("é", maxEvidenceError)
	f := findingOf(state, now)
	if f.Target != "web/a/backend/127.9.1.3:80" || f.Status != "down" || f.AgeMS != 2000 || f.LatencyUS != 1500 || f.Code != 503 || f.Streak != 3 || !f.Flapping {
		t.Errorf("got %+v", f)
	}
	if len(f.Error) > maxEvidenceError || !utf8.ValidString(f.Error) || !strings.HasPrefix(f.Error, "bad é") {
		t.Errorf("error %q", f.Error)
	}
	e := f.evidence()
	if e == nil || e.AgeSeconds != 2 || e.LatencyMS != 1.5 || e.Weight == nil || *e.Weight != 50 {
		t.Errorf("evidence %+v", e)
	}
	state.Last.At, state.Weight = time.Time{}, fullWeight
	if f := findingOf(state, now); f.AgeMS != -1 || f.evidence() != nil {
		t.Errorf("never probed: %+v", f)
	}
}

// What is said arrives as it was, as much of it as fits into one answer.
func TestFindingsRoundTrip(t *testing.T) {
	var all []finding
	for i := range 1000 {
		all = append(all, finding{Target: fmt.Sprintf("web/a/backend/127.9.1.3:%d", i), Status: "down", Error: strings.Repeat("x", 150), AgeMS: int64(i), Weight: fullWeight})
	}
	for _, n := range []int{0, 1, 2, 1000} {
		raw := encodeFindings(all[:n])
		got, ok := parseFindings(raw)
		if !ok || len(raw) > maxEvidence {
			t.Fatalf("%d findings: ok %v, %d bytes", n, ok, len(raw))
		}
		if n < 100 && len(got) != n || n >= 100 && len(raw) < maxEvidence*9/10 {
			t.Errorf("%d findings: %d arrived in %d bytes", n, len(got), len(raw))
		}
		if diff := cmp.Diff(all[:len(got)], got); diff != "" && n > 0 {
			t.Errorf("%d findings (-want +got)\n%s", n, diff)
		}
	}
}

// Whatever another node answers, what is shown of it is harmless.
func FuzzParseFindings(f *testing.F) {
	for _, seed := range []string{
		`[{"target":"web/a/backend/127.9.1.3:80","status":"up","age_ms":12,"latency_us":800,"streak":4,"weight":100}]`,
		`[{"error":"\u001b[2J","age_ms":9223372036854775807,"latency_us":-1,"weight":255}]`, `null`, `[`, `{}`, `[null]`, "[{\"error\":\"\xff\"}]",
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		all, ok := parseFindings(raw)
		if ok != (json.Unmarshal(raw, &[]finding{}) == nil) {
			t.Fatalf("ok %v", ok)
		}
		for _, got := range all {
			if len(got.Error) > 3*maxEvidenceError || strings.ContainsFunc(got.Error, func(r rune) bool { return !unicode.IsGraphic(r) }) {
				t.Errorf("error %q", got.Error)
			}
			e := got.evidence()
			if e == nil {
				continue
			}
			if day := 86400.0; e.AgeSeconds < 0 || e.AgeSeconds > day || e.LatencyMS < 0 || e.LatencyMS > day*1000 || math.IsNaN(e.LatencyMS) {
				t.Errorf("age %v s, latency %v ms", e.AgeSeconds, e.LatencyMS)
			}
			if e.Weight != nil && *e.Weight > fullWeight {
				t.Errorf("weight %d", *e.Weight)
			}
		}
	})
}

// A question is answered with what it names; nonsense is not answered at all.
func TestAnswer(t *testing.T) {
	t.Parallel()
	n := nodeIn(t, t.TempDir(), at("127.9.43.", strings.ReplaceAll(oneSite, "WAIT", "1s")))
	for _, tt := range []struct {
		raw  string
		want int // -1: no answer
	}{
		{`{"pattern":""}`, 3},
		{`{}`, 3},
		{`{"pattern":"web"}`, 2},
		{`{"pattern":"*/a/backend/*11:9000"}`, 2},
		{`{"pattern":"nothing"}`, 0},
		{`{"pattern":"` + strings.Repeat("*a", maxEvidencePattern) + `"}`, -1},
		{`{"pattern":7}`, -1},
		{`rubbish`, -1},
		{"", -1},
		{"\x00\xff", -1},
	} {
		reply := n.answer("b1", []byte(tt.raw))
		if tt.want < 0 {
			if reply != nil {
				t.Errorf("%.40q: answered %s", tt.raw, reply)
			}
			continue
		}
		if all, ok := parseFindings(reply); !ok || len(all) != tt.want {
			t.Errorf("%.40q: got %s, want %d findings", tt.raw, reply, tt.want)
		}
	}
	if raw, err := json.Marshal(question{Pattern: "web"}); err != nil || !bytes.Equal(raw, []byte(`{"pattern":"web"}`)) {
		t.Errorf("the question is %s", raw)
	}
}
