package probe

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/iotest"
)

func TestJudgeBody(t *testing.T) {
	const doc = `{"status":"ok","n":1.0,"up":true,"none":null,"pools":[{"free":3},{"free":0}],"a.b":"dot"}`
	when := func(path, value string) Check { return Check{JSON: []JSONMatch{{path, value}}} }
	for _, tt := range []struct {
		name, body string
		check      Check
		want       string
	}{
		{"nothing wanted", "x", Check{}, ""},
		{"contains", "all is well", Check{Body: "is w"}, ""},
		{"does not contain", "all is well", Check{Body: "ill"}, `body does not contain "ill"`},
		{"contains besides a regexp", "all is well", Check{Body: "ill", BodyRegexp: "."}, `body does not contain "ill"`},
		{"matches", "load 0.31", Check{BodyRegexp: `^load 0\.\d+$`}, ""},
		{"does not match", "load 1.31", Check{BodyRegexp: `^load 0\.\d+$`}, `body does not match "^load 0\\.\\d+$"`},
		{"too far to match", strings.Repeat("x", maxBodyBytes) + "y", Check{BodyRegexp: "y"}, `body does not match "y" in its first 64 KiB`},
		{"too far to contain", strings.Repeat("x", maxBodyBytes) + "y", Check{Body: "y"}, `body does not contain "y" in its first 64 KiB`},
		{"json text", doc, when("$.status", "ok"), ""},
		{"json differs", doc, when("$.status", "fine"), `JSON $.status is "ok", want "fine"`},
		{"json number as written", doc, when("n", "1.0"), ""},
		{"json number otherwise", doc, when("n", "1"), `JSON $.n is "1.0", want "1"`},
		{"json bool", doc, when("up", "true"), ""},
		{"json null", doc, when("none", "null"), ""},
		{"json deep", doc, when("$.pools[1].free", "0"), ""},
		{"json odd name", doc, when(`$["a.b"]`, "dot"), ""},
		{"json missing", doc, when("$.pools[2].free", "0"), `JSON $.pools[2].free is missing, want "0"`},
		{"json object", doc, when("$.pools[0]", "x"), `JSON $.pools[0] is an object, want "x"`},
		{"json index into an object", `{"":"x"}`, when("[0]", "x"), `JSON $[0] is missing, want "x"`},
		{"json array", doc, when("$.pools", "x"), `JSON $.pools is an array, want "x"`},
		{"the second of two", doc, Check{JSON: []JSONMatch{{"status", "ok"}, {"up", "false"}}}, `JSON $.up is "true", want "false"`},
		{"not json", "<html>", when("status", "ok"), "body is not JSON"},
		{"json and more", doc + "{}", when("status", "ok"), "body is not JSON"},
		{"json and space", doc + " \n", when("status", "ok"), ""},
		{"long json", `{"a":"` + strings.Repeat("x", maxBodyBytes), when("status", "ok"), "body is not JSON in its first 64 KiB"},
	} {
		p := &prober{}
		for range 2 { // the second time with what the first has compiled
			_, err := p.judgeBody(iotest.OneByteReader(strings.NewReader(tt.body)), &tt.check)
			if fmt.Sprint(err) != tt.want && !(err == nil && tt.want == "") {
				t.Errorf("%s: got %v, want %q", tt.name, err, tt.want)
			}
			var found finding
			if err != nil && !errors.As(err, &found) {
				t.Errorf("%s: %v is no finding", tt.name, err)
			}
		}
	}
	broken := iotest.ErrReader(errors.New("cut"))
	for _, c := range []Check{{Body: "x"}, {BodyRegexp: "x"}, when("a", "b"), {WeightJSON: "a"}} {
		if _, err := (&prober{}).judgeBody(broken, &c); err == nil || err.Error() != "cut" {
			t.Errorf("%+v: a body that cannot be read: %v", c, err)
		}
	}
}

func TestWeights(t *testing.T) {
	for in, want := range map[string]int{
		"0": 0, "75": 75, "75%": 75, " 75 % ": 75, "99.6": 100, "0.4": 0, "100": 100, ".5%": 1,
		"": -1, "%": -1, ".": -1, "101": -1, "100.4": -1, "-1": -1, "+5": -1, "1e1": -1, "0x10": -1, "inf": -1, "NaN": -1,
		"75%%": -1, "seventy": -1, "7 5": -1, "1.2.3": -1, strings.Repeat("0", 99): -1,
	} {
		got, ok := percent(in)
		if ok != (want >= 0) || ok && int(got) != want {
			t.Errorf("%q: got %d %v, want %d", in, got, ok, want)
		}
	}
}

func TestPatternsAreBounded(t *testing.T) {
	var p patterns
	for i := range maxPatterns + 10 {
		if _, err := p.get(fmt.Sprint("x", i)); err != nil {
			t.Fatal(err)
		}
		if len(p.kept) > maxPatterns {
			t.Fatalf("%d are kept", len(p.kept))
		}
	}
	first, _ := p.get("again")
	if second, _ := p.get("again"); first != second {
		t.Error("compiled twice")
	}
}
