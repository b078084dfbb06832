package config

import (
	"time"
)

// check makes a service's check: its kind, its schedule, and what goes with it.
func (b *builder) check(d *draft) Check {
	at := d.at.section("check")
	c := Check{
		Every:     get[time.Duration](at, "every"),
		Timeout:   get[time.Duration](at, "timeout"),
		Jitter:    get[float64](at, "jitter"),
		Rise:      get[int](at, "rise"),
		Fall:      get[int](at, "fall"),
		Recheck:   get[time.Duration](at, "recheck"),
		VIPPort:   uint16(get[int](at, "vip_port")),
		From:      get[Vantage](at, "from"),
		VIPFrom:   get[Vantage](at, "vip_from"),
		SlowStart: get[time.Duration](at, "slow_start"),
	}
	b.checkTimes(at, &c)
	if at.entry("passive") != nil || at.data == string(CheckPassive) {
		passive := at.section("passive")
		c.Passive = PassiveCheck{Fall: get[int](passive, "fall"), For: get[time.Duration](passive, "for")}
	}
	b.readKind(at, &c, c.Every)
	if n := c.parts(); n > maxParts {
		b.refuse(at.entry(string(c.Kind)), refuse("combines %d checks: at most %d are allowed", n, maxParts))
	}
	if flap := at.section("flap"); flap.data == nil {
		c.Flap = FlapDamping{Limit: get[int](flap, "limit"), HalfLife: get[time.Duration](flap, "half_life")}
	}
	if weight := at.entry("weight"); weight != nil {
		c.Weight = WeightSource{Header: get[string](weight, "header"), JSON: get[string](weight, "json")}
		b.checkWeight(weight, &c)
	}
	b.checkVantage(at, &c)
	return c
}

// checkTimes fills in the times that depend on every, and checks the others against it.
func (b *builder) checkTimes(at *value, c *Check) {
	if at.entry("timeout") == nil {
		c.Timeout = min(c.Every, defaultTimeout)
	} else if at.sound("every", "timeout") && c.Timeout > c.Every {
		b.refuse(at.entry("timeout"), refuse("%s is longer than every (%s): a probe must end before the next begins", plain(c.Timeout), plain(c.Every)))
	}
	if at.entry("recheck") == nil {
		c.Recheck = min(c.Every, defaultRecheck)
	} else if at.sound("every", "recheck") && c.Recheck > c.Every {
		b.refuse(at.entry("recheck"), refuse("%s is longer than every (%s): rechecks come faster", plain(c.Recheck), plain(c.Every)))
	}
}

// checkWeight refuses a weight that no answer of the check could carry.
func (b *builder) checkWeight(at *value, c *Check) {
	asks, body := false, false
	for part := range c.leaves {
		if part.Kind == CheckHTTP || part.Kind == CheckHTTPS {
			asks = true
			body = body || part.HTTP.Method != "HEAD"
		}
	}
	switch {
	case c.Kind == CheckFile:
		b.refuseKey(at, refuse("has no effect here: the file itself says weight N"))
	case !asks:
		b.refuseKey(at, refuse("is taken from the answer of an http or https check, which this is not"))
	case c.Weight.JSON != "" && !body:
		b.refuse(at.entry("json"), refuse("a HEAD request has no body to search: use method GET, or header"))
	}
}

// checkVantage refuses more sites than there are, and what has no effect.
func (b *builder) checkVantage(at *value, c *Check) {
	sites := len(b.cfg.Sites)
	if from := at.entry("from"); from != nil && from.data != nil {
		switch {
		case c.Kind == CheckPassive && c.From != 0:
			b.refuse(from, refuse("has no effect: with passive alone no backend is probed"))
		case int(c.From) > sites:
			b.refuse(from, refuse("%d is more sites than there are (%d)", c.From, sites))
		}
	}
	if from := at.entry("vip_from"); from != nil && int(c.VIPFrom) >= max(sites, 2) {
		b.refuse(from, refuse("%d is more sites than there are besides the VIP's own (%d)", c.VIPFrom, max(sites-1, 0)))
	}
	if port := at.entry("vip_port"); port != nil && !c.needsPort() {
		b.refuseKey(port, refuse("has no effect: icmp has no ports"))
	}
}

// leaves yields the check itself, or the checks that it combines.
func (c *Check) leaves(yield func(*Check) bool) { c.eachLeaf(yield) }

func (c *Check) eachLeaf(yield func(*Check) bool) bool {
	if !c.combines() {
		return yield(c)
	}
	for i := range c.Of {
		if !c.Of[i].Check.eachLeaf(yield) {
			return false
		}
	}
	return true
}

// combines reports whether the check only joins others.
func (c *Check) combines() bool {
	return c.Kind == CheckAll || c.Kind == CheckAny || c.Kind == CheckAtLeast
}

// parts counts the checks that this one combines, at every depth: those that only
// join others too.
func (c *Check) parts() int {
	n := len(c.Of)
	for i := range c.Of {
		n += c.Of[i].Check.parts()
	}
	return n
}

// needsPort reports whether the VIPs are probed at a port.
func (c *Check) needsPort() bool {
	for part := range c.leaves {
		if part.Kind != CheckICMP {
			return true
		}
	}
	return false
}

// checkServices checks what a service needs of the rest of the file: VIPs at each
// site it is steered to, a port at which the other sites can probe them, and
// traffic where that is the check.
func (b *builder) checkServices() {
	for _, d := range b.order {
		if d.named != nil && !d.at.isMeant("vip") {
			for _, pool := range d.Pools {
				if d.vips[pool.Site] == nil {
					b.refuseKey(d.pools[pool.Site], refuse("%s is answered with the VIPs of %s, which has none at %s: add vip.%s",
						plainName(d.named.FQDN), d.Name, pool.Site, pool.Site))
				}
			}
		}
		check := d.at.section("check")
		if len(d.VIPs) > 0 && len(b.cfg.Sites) > 1 && !d.listened && check.entry("vip_port") == nil && !d.onePort() && d.Check.needsPort() {
			b.refuseKey(d.at.entry("vip"), refuse("the port to probe the VIPs at is not known: no listener serves %s and its backends have several ports; set check.vip_port", d.Name))
		}
		if d.Check.Passive.Fall > 0 && !d.listened && !b.top.isMeant("listeners") {
			at := check
			if passive := check.entry("passive"); passive != nil {
				at = passive
			}
			b.refuseKey(at, refuse("passive needs traffic that is forwarded here: no listener forwards to %s", d.Name))
		}
	}
}

// onePort reports whether all backends have the same port.
func (d *draft) onePort() bool {
	port := uint16(0)
	for _, pool := range d.Pools {
		for _, backend := range pool.Backends {
			if port != 0 && backend.Address.Port() != port {
				return false
			}
			port = backend.Address.Port()
		}
	}
	return true
}
