package steer

import (
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/pharos-lb/pharos/internal/config"
)

func TestCheck(t *testing.T) {
	topology := compile(t, shop(), "")
	for _, c := range []struct {
		name string
		test config.Test
		want string // "ok SITES", "got SITES" or "error …"
	}{
		{"country", config.Test{Name: "web.example.com.", From: "DE", Expect: []string{"fra"}}, "ok fra"},
		{"any case, no dot", config.Test{Name: "WEB.example.com", From: "de", Expect: []string{"fra"}}, "ok fra"},
		{"one of several", config.Test{Name: "web.example.com.", From: "DE", Expect: []string{"iad", "fra"}}, "ok fra"},
		{"wrong", config.Test{Name: "web.example.com.", From: "DE", Expect: []string{"iad"}}, "got fra"},
		{"down", config.Test{Name: "web.example.com.", From: "DE", Down: []string{"fra"}, Expect: []string{"ams"}}, "ok ams"},
		{"backends down", config.Test{Name: "web.example.com.", From: "DE", Down: []string{"10.0.2.1:8080", "10.0.2.2:8080"}, Expect: []string{"ams"}}, "ok ams"},
		{"all down", config.Test{Name: "web.example.com.", From: "DE", Down: []string{"ams", "fra", "iad", "sin"}, Expect: []string{"fra"}}, "ok fra"},
		{"continent", config.Test{Name: "web.example.com.", From: "continent:AS", Expect: []string{"sin"}}, "ok sin"},
		{"address", config.Test{Name: "web.example.com.", From: "10.9.3.4", Expect: []string{"iad"}}, "ok iad"},
		{"prefix", config.Test{Name: "web.example.com.", From: "10.9.3.0/24", Expect: []string{"iad"}}, "ok iad"},
		{"network", config.Test{Name: "api.example.com.", From: "network:office", Expect: []string{"sin"}}, "ok sin"},
		{"region", config.Test{Name: "api.example.com.", From: "US-CA", Down: []string{"sin"}, Expect: []string{"iad"}}, "ok iad"},
		{"AAAA", config.Test{Name: "web.example.com.", Type: "AAAA", From: "US", Expect: []string{"fra"}}, "ok fra"},
		{"AAAA that nobody has", config.Test{Name: "api.example.com.", Type: "AAAA", From: "US", Expect: []string{"fra"}}, "got "},
		{"wildcard", config.Test{Name: "q.example.com.", From: "DE", Expect: []string{"fra"}}, "ok fra"},
		{"every weighted site must be expected", config.Test{Name: "shared.example.com.", From: "DE", Expect: []string{"fra", "iad"}}, "ok fra, iad"},
		{"one weighted site is not", config.Test{Name: "shared.example.com.", From: "DE", Expect: []string{"fra"}}, "got fra, iad"},
		{"name", config.Test{Name: "web.example.net.", From: "DE"}, "error explain web.example.net.: not a steered name; did you mean web.example.com.?"},
		{"anycast", config.Test{Name: "any.example.com.", From: "DE"}, "error any.example.com. is answered with anycast addresses: which site a client gets is up to the network"},
		{"type", config.Test{Name: "web.example.com.", Type: "MX", From: "DE"}, `error type "MX": only A and AAAA are steered`},
		{"down names nothing", config.Test{Name: "web.example.com.", From: "DE", Down: []string{"fro"}}, `error assume "fro" down: neither a site nor the address:port of a backend; did you mean "fra"?`},
		{"no such network", config.Test{Name: "web.example.com.", From: "network:lap"}, `error place "network:lap": no such network; did you mean "lab"?`},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := Check(topology, c.test)
			got := "got " + strings.Join(r.Got, ", ")
			switch {
			case r.Err != nil:
				got = "error " + r.Err.Error()
			case r.OK:
				got = "ok " + strings.Join(r.Got, ", ")
			}
			if got != c.want {
				t.Errorf("\n got %s\nwant %s", got, c.want)
			}
			if failed := r.Err == nil && !r.OK; failed != (r.Explanation != nil) {
				t.Errorf("explanation of a test that failed = %v: %v", failed, r.Explanation)
			}
		})
	}
	if r := Check(topology, config.Test{Name: "web.example.com.", From: "Atlantis"}); r.Err == nil {
		t.Error("Atlantis is a place")
	}
	var notSteered *NotSteeredError
	if r := Check(topology, config.Test{Name: "web.example.net."}); !errors.As(r.Err, &notSteered) {
		t.Errorf("%v is no *NotSteeredError", r.Err)
	}
}

func TestTestResultString(t *testing.T) {
	topology := compile(t, shop(), "")
	var got []string
	for _, test := range []config.Test{
		{Name: "web.example.com.", From: "DE", Expect: []string{"fra"}},
		{Name: "web.example.com.", From: "DE", Down: []string{"fra", "ams"}, Expect: []string{"sin", "fra"}},
		{Name: "api.example.com.", Type: "AAAA", From: "DE", Expect: []string{"fra"}},
		{Name: "web.example.com.", Type: "TXT", From: "DE", Expect: []string{"fra"}},
	} {
		got = append(got, Check(topology, test).String())
	}
	want := []string{
		"web.example.com. A from DE: fra",
		"web.example.com. A from DE with fra, ams down: expected sin or fra, got iad",
		"api.example.com. AAAA from DE: expected fra, got no answer",
		`web.example.com. TXT from DE: type "TXT": only A and AAAA are steered`,
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}
