package config

import (
	"encoding/base64"
	"net/netip"
	"slices"
	"strings"
	"time"
)

func (b *builder) buildCluster() {
	at := b.top.section("cluster")
	c := Cluster{
		Name: get[string](at, "name"),
		Port: uint16(get[int](at, "port")),
		Wait: get[time.Duration](at, "wait"),
	}
	b.claim(at, "port", Bind{Host: bindNode, Port: c.Port}, nil, overTCP|overUDP)
	from := b.readKeys(at, &c)
	c.SignKeyFile = b.fileOf(at, "sign_key_file")
	c.OverridesFile = b.fileOf(at, "overrides_file")
	if seeds := at.entry("seeds"); seeds != nil {
		c.SeedsDNS, c.SeedsFile = get[string](seeds, "dns"), b.fileOf(seeds, "file")
		if len(seeds.entries) == 0 && len(seeds.meant) == 0 {
			b.refuse(seeds, refuse("names no place to look for nodes: write dns, file or both"))
		}
	}
	c.Canaries = each[netip.AddrPort](at.list("canaries"))
	b.cfg.Cluster = c
	b.checkSigning(at)
	if from != nil || at.isMeant("secret_file", "secret") || b.top.isMeant("cluster") {
		return
	}
	for _, site := range b.cfg.Sites {
		for _, node := range site.Nodes {
			if !node.Address.IsLoopback() {
				b.refuseKey(at, refuse("secret_file is missing: node %s (%s) is not on loopback, so gossip must be encrypted", node.Name, node.Address))
				return
			}
		}
	}
}

// fileOf returns the file that a key names, joined to the folder of the
// configuration; "" without one. It is not read.
func (b *builder) fileOf(at *value, key string) string {
	name := get[string](at, key)
	if name == "" {
		return ""
	}
	return b.resolve(name)
}

// checkSigning refuses a node with a public key that has nothing to sign with.
func (b *builder) checkSigning(at *value) {
	if at.entry("sign_key_file") != nil || at.isMeant("sign_key_file") || b.top.isMeant("cluster") {
		return
	}
	for _, site := range b.cfg.Sites {
		for _, node := range site.Nodes {
			if node.PublicKey != nil {
				b.refuseKey(at, refuse("sign_key_file is missing: node %s has a public_key, so it must sign its reports", node.Name))
				return
			}
		}
	}
}

// readKeys reads the gossip keys, and returns the value that they came from; nil
// if none is given.
func (b *builder) readKeys(at *value, c *Cluster) *value {
	file := at.entry("secret_file")
	if file == nil || at.entry("secret") != nil {
		text, from := b.readSecretOf(at, "secret")
		if text != "" {
			key, ok := gossipKey(text)
			if !ok {
				b.refuse(from, refuse("the gossip key is not 16, 24 or 32 bytes in base64: make one with `head -c 32 /dev/urandom | base64`"))
			}
			c.Key, c.Keys = key, []Secret{key}
		}
		return from
	}
	name, ok := file.data.(string)
	if !ok {
		return file
	}
	data, p := b.readFile(name, maxSecretFile)
	if p != nil {
		b.refuse(file, p)
		return file
	}
	for i, line := range strings.Split(string(data), "\n") {
		text, _, _ := strings.Cut(line, "#")
		if text = strings.TrimSpace(text); text == "" {
			continue
		}
		key, ok := gossipKey(text)
		switch {
		case !ok:
			b.refuse(file, refuse("line %d of %s is not a gossip key, 16, 24 or 32 bytes in base64: make one with `head -c 32 /dev/urandom | base64`", i+1, clip(name)))
		case slices.Contains(c.Keys, key):
			b.refuse(file, refuse("line %d of %s is a key that is already there", i+1, clip(name)))
		default:
			c.Keys = append(c.Keys, key)
		}
	}
	switch {
	case len(c.Keys) > maxKeys:
		b.refuse(file, refuse("%s has %d keys: at most %d are used", clip(name), len(c.Keys), maxKeys))
	case len(c.Keys) > 0:
		c.Key, c.KeyFile = c.Keys[0], b.resolve(name)
	case len(strings.TrimSpace(string(data))) == 0:
		b.refuse(file, refuse("%s is empty", clip(name)))
	case !b.refused(file):
		b.refuse(file, refuse("%s has comments, but no key", clip(name)))
	}
	return file
}

// gossipKey decodes one key.
func gossipKey(text string) (Secret, bool) {
	key, err := base64.StdEncoding.DecodeString(text)
	n := len(key)
	return NewSecret(string(key)), err == nil && (n == 16 || n == 24 || n == 32)
}

// refused reports whether the newest mistake is one in v.
func (b *builder) refused(v *value) bool {
	return len(b.errs) > 0 && b.errs[len(b.errs)-1].Path == v.path()
}

// checkCanaries refuses canaries that say nothing about the world outside.
func (b *builder) checkCanaries() {
	items := b.top.section("cluster").list("canaries")
	if len(items) == 0 {
		return
	}
	inside := make(map[netip.Addr]string)
	for _, s := range b.order {
		for _, pool := range s.Pools {
			for _, backend := range pool.Backends {
				inside[backend.Address.Addr()] = "a backend of " + s.Name
			}
		}
		for _, addr := range s.addresses {
			inside[addr] = "a VIP of " + s.Name
		}
	}
	for _, addr := range b.nodeAddrs {
		inside[addr] = "a node's address"
	}
	seen := make(map[netip.AddrPort]bool)
	for _, item := range items {
		canary, ok := item.data.(netip.AddrPort)
		if !ok {
			continue
		}
		if what := inside[canary.Addr()]; what != "" {
			b.refuse(item, refuse("%s is %s: a canary is outside the fleet", canary.Addr(), what))
		}
		if seen[canary] {
			b.refuse(item, refuse("%s is listed twice", canary))
		}
		seen[canary] = true
	}
}
