package lab

import (
	"errors"
	"fmt"
	"sync"
	"syscall"
)

// Do does one thing to the fleet and says what was done. It returns when it is
// done, not when the fleet has noticed.
func (l *Lab) Do(f Fault) (string, error) {
	l.doing.Lock()
	defer l.doing.Unlock()
	if l.closed {
		return "", errors.New("the lab has ended")
	}
	did, err := l.do(f)
	err = errors.Join(err, l.net.reroute(l.lives))
	if err == nil {
		l.say("%s", did)
	}
	return did, err
}

// lives reports whether a member is there to take packets.
func (l *Lab) lives(member int) bool {
	at, isNode := l.index[l.layout.Members[member].Name]
	return !isNode || l.nodes[at].lives()
}

func (l *Lab) do(f Fault) (string, error) {
	switch f.Kind {
	case FaultCut:
		return l.cut(f.A, f.B, 100, f.OneWay)
	case FaultDrop:
		return l.cut(f.A, f.B, f.Percent, f.OneWay)
	case FaultIsolate:
		return l.isolate(f.A)
	case FaultHeal:
		return l.heal(f.A, f.B)
	case FaultBackend:
		return l.setBackends(f.A, f.Up)
	}
	if _, err := l.layout.node(f.A); err != nil {
		return "", err
	}
	p := l.nodes[l.index[f.A]]
	switch f.Kind {
	case FaultKill:
		if p.condition().pid == 0 {
			return "node " + p.name + " is not running", nil
		}
		p.end(syscall.SIGKILL)
		return "killed node " + p.name, nil
	case FaultFreeze:
		return "node " + p.name + " is frozen", p.freeze(true)
	case FaultThaw:
		return "node " + p.name + " goes on", p.freeze(false)
	case FaultRestart:
		p.end(syscall.SIGTERM)
		return "node " + p.name + " is started again", p.start()
	case FaultWipe:
		if err := p.wipe(); err != nil {
			return "", err
		}
		return "node " + p.name + " has lost its state and is started again", p.start()
	case FaultFillDisk:
		return "the disk of " + p.name + " is full", p.fill()
	case FaultFreeDisk:
		return "the disk of " + p.name + " has room again", p.free()
	case FaultClock:
		return fmt.Sprintf("the clock of %s is off by %s", p.name, f.Offset), p.clock(f.Offset)
	}
	return "", fmt.Errorf("%q is nothing that the lab does", f.Kind)
}

func (l *Lab) cut(a, b string, percent int, oneWay bool) (string, error) {
	if err := l.filter.drop(a, b, percent, oneWay); err != nil {
		return "", err
	}
	arrow := " ↔ "
	if oneWay {
		arrow = " → "
	}
	if percent < 100 {
		return fmt.Sprintf("%s%s%s loses %d %%", a, arrow, b, percent), nil
	}
	return "cut " + a + arrow + b, nil
}

func (l *Lab) isolate(name string) (string, error) {
	if name == allName {
		return "", errors.New("isolate a site, a node or the client")
	}
	err := l.filter.drop(name, allName, 100, false)
	if err == nil && name != clientName {
		err = l.filter.drop(name, clientName, 100, false)
	}
	return name + " is isolated", err
}

// heal takes back the faults of the network at a (and b), and with a name alone
// also what was done to the nodes and backends there; without a name all.
func (l *Lab) heal(a, b string) (string, error) {
	for _, name := range []string{a, b} {
		if name != "" {
			if _, err := l.layout.Find(name); err != nil {
				return "", err
			}
		}
	}
	n, err := l.filter.heal(a, b)
	if err != nil {
		return "", err
	}
	if b != "" {
		return fmt.Sprintf("%s and %s are connected again (%d filters removed)", a, b, n), nil
	}
	if a == "" {
		a = allName
	}
	members, err := l.layout.Find(a)
	if err != nil {
		return "", err
	}
	var lock sync.Mutex
	var errs []error
	var wg sync.WaitGroup
	for _, m := range members {
		at, isNode := l.index[l.layout.Members[m].Name]
		if !isNode {
			continue
		}
		wg.Go(func() {
			err := l.cure(l.nodes[at])
			lock.Lock()
			defer lock.Unlock()
			errs = append(errs, err)
		})
	}
	wg.Wait()
	for _, bk := range l.backends {
		if a == allName || bk.plan.Site == a {
			errs = append(errs, bk.start())
		}
	}
	if a == allName {
		a = "everything"
	}
	return a + " is well again", errors.Join(errs...)
}

// cure takes back everything that was done to a node.
func (l *Lab) cure(p *process) error {
	errs := []error{p.free()}
	c := p.condition()
	if c.frozen {
		errs = append(errs, p.freeze(false))
	}
	if c.offset != 0 {
		errs = append(errs, p.clock(0))
	}
	return errors.Join(append(errs, p.start())...)
}

// setBackends stops or starts the backends that a name means.
func (l *Lab) setBackends(name string, up bool) (string, error) {
	found := 0
	var errs []error
	for _, b := range l.backends {
		if !b.plan.named(name) {
			continue
		}
		found++
		if up {
			errs = append(errs, b.start())
		} else {
			b.stop()
		}
	}
	if found == 0 {
		return "", fmt.Errorf("the lab has no backend %q; name an address:port, a site, or service@site", name)
	}
	return fmt.Sprintf("%d backends of %s are %s", found, name, map[bool]string{true: "up", false: "down"}[up]), errors.Join(errs...)
}
