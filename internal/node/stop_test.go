package node

import (
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/pharos-lb/pharos/internal/config"
)

// The time of a stop is shared out so that connections have the larger part of it.
func TestStopSteps(t *testing.T) {
	for _, c := range []struct {
		drain config.Drain
		leads time.Duration
		want  stopSteps
	}{
		{config.Drain{Stop: 15 * time.Second, Depreference: 30 * time.Second}, 30 * time.Second, stopSteps{15 * time.Second, 5 * time.Second, 3 * time.Second}},
		{config.Drain{Stop: 90 * time.Second, Depreference: 10 * time.Second}, 30 * time.Second, stopSteps{90 * time.Second, 30 * time.Second, 10 * time.Second}},
		{config.Drain{Stop: 90 * time.Second, Depreference: 10 * time.Second}, 0, stopSteps{90 * time.Second, 0, 10 * time.Second}},
		{config.Drain{Stop: time.Second}, time.Hour, stopSteps{time.Second, time.Second / 3, 0}},
	} {
		if got := stepsOf(c.drain, c.leads); got != c.want {
			t.Errorf("%+v, answers of %s: %+v, want %+v", c.drain, c.leads, got, c.want)
		}
	}
}

// Two nodes of a site that stop together both give resolvers time to go elsewhere.
func TestStopTogether(t *testing.T) {
	t.Parallel()
	const network = "127.9.71."
	newBackend(t, network+"11:9000", "one", released())
	newBackend(t, network+"12:9000", "two", released())
	config := at(network, bothSites) + "drain: {stop: 9s}\n"
	config = replaceOnce(t, config, "{a1: "+network+"1}", "{a1: "+network+"1, a2: "+network+"3}")
	config = replaceOnce(t, config, "www: {service: web}", "www: {service: web, ttl: 2s}")
	config = replaceOnce(t, config, `bind: "vip:8080"`, `bind: "node:8080"`) // two nodes of one machine cannot both listen at the VIP
	for _, vip := range []string{"80:9000", "90:9000"} {
		newBackend(t, network+vip, "vip", released()) // what the other sites ask at
	}
	key := newKeyText(t)
	nodes := map[string]*running{}
	for _, name := range []string{"a1", "a2", "b1"} {
		dir := t.TempDir()
		write(t, filepath.Join(dir, "gossip.key"), key+"\n")
		nodes[name] = start(t, nodeNamed(t, name, dir, config))
	}
	for name, r := range nodes {
		eventually(t, name+" answers with both sites", func() bool {
			return r.state(t) == "serving" && slices.Equal(sitesAnswered(r), []string{"a", "b"}) && len(r.members()) == 3
		})
	}
	began := time.Now()
	var stops sync.WaitGroup
	took := make(map[string]*time.Duration)
	for _, name := range []string{"a1", "a2"} {
		d := new(time.Duration)
		took[name] = d
		stops.Go(func() {
			if err := nodes[name].stop(); err != nil {
				t.Error(err)
			}
			*d = time.Since(began)
		})
	}
	within(t, everywhere, "b1 answers with b alone", func() bool { return slices.Equal(sitesAnswered(nodes["b1"]), []string{"b"}) })
	stops.Wait()
	for name, d := range took {
		if *d < 2*time.Second {
			t.Errorf("%s stopped after %s, sooner than resolvers notice", name, *d)
		}
	}
}
