package lab

import (
	"context"
	"os"
	"testing"
	"time"
)

// upWithin is for machines that do other work as well: on one that does not the example is up within 20 s.
const upWithin = time.Minute

// TestExampleIsUpInTime: the example of the README is a fleet that serves, routers, backends and resolver included.
func TestExampleIsUpInTime(t *testing.T) {
	needRouters(t)
	said := &screen{}
	began := time.Now()
	l, err := New(Options{Binary: os.Args[0], Program: "pharos", ID: "texample", ConfigFile: "../../examples/three-sites.yaml", Routers: RoutersAuto, Out: said})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	}()
	ctx, cancel := context.WithTimeout(t.Context(), upWithin+time.Minute)
	defer cancel()
	if err := l.Start(ctx); err != nil {
		t.Fatalf("%v\n%s", err, said)
	}
	took := time.Since(began)
	t.Logf("up after %s", took.Round(time.Millisecond))
	if took > upWithin {
		t.Errorf("it took %s, want %s at most\n%s", took, upWithin, said)
	}
	answers, err := l.Query(ctx, Question{Name: "www.example.com"})
	if err != nil || len(answers) != 4 {
		t.Fatalf("%d nodes answer, want 4: %v", len(answers), err)
	}
	for _, a := range answers {
		if a.RCode != "Success" || len(a.Addresses) == 0 {
			t.Errorf("%s answers %+v", a.Node, a)
		}
	}
}
