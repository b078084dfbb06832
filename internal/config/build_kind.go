package config

import (
	"cmp"
	"net/netip"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// readKind reads which kind a check is, and the part that belongs to it. every is
// the interval of the whole.
func (b *builder) readKind(at *value, c *Check, every time.Duration) {
	c.Kind = CheckTCP
	if word, short := at.data.(string); short {
		c.Kind = CheckKind(word)
	} else if given := slices.IndexFunc(at.entries, isKind); given >= 0 {
		c.Kind = CheckKind(at.entries[given].key.Value)
	} else if at.entry("passive") != nil {
		c.Kind = CheckPassive
	}
	if c.Kind == CheckTCP || c.Kind == CheckICMP || c.Kind == CheckPassive {
		return
	}
	with := at.section(string(c.Kind))
	switch c.Kind {
	case CheckHTTP, CheckHTTPS:
		c.HTTP = b.httpCheck(with)
		if c.Kind == CheckHTTPS {
			c.TLS = TLSCheck{SNI: c.HTTP.SNI, Insecure: c.HTTP.Insecure, MinValid: get[time.Duration](with, "min_valid")}
		}
	case CheckTLS:
		c.TLS = TLSCheck{
			SNI: get[string](with, "sni"), Insecure: get[bool](with, "insecure"), MinValid: get[time.Duration](with, "min_valid"),
		}
	case CheckDNS:
		c.DNS = b.dnsCheck(with)
	case CheckUDP:
		c.UDP = UDPCheck{Send: get[string](with, "send"), Expect: get[string](with, "expect")}
	case CheckGRPC:
		c.GRPC = b.grpcCheck(with)
	case CheckExec:
		c.Exec = b.execCheck(with)
	case CheckFile:
		c.File = FileCheck{Path: get[string](with, "path"), MaxAge: get[time.Duration](with, "max_age")}
		if with.entry("max_age") == nil {
			c.File.MaxAge = defaultAgeIntervals * every
		}
	case CheckAll, CheckAny:
		c.Of = b.combined(with.items, every)
	case CheckAtLeast:
		c.Of, c.Need = b.combined(with.list("of"), every), get[int](with, "need")
		weight := 0
		for _, part := range c.Of {
			weight += part.Weight
		}
		if len(with.list("of")) > 0 && c.Need > weight {
			b.refuse(with.entry("need"), refuse("%d can never be reached: the checks weigh %d together", c.Need, weight))
		}
	}
}

// isKind reports whether a value is under the key of a kind that may stand alone.
func isKind(v *value) bool {
	return slices.Contains(probedKinds(), v.key.Value) || slices.Contains(combiningKinds(), v.key.Value)
}

// combined makes the checks that another one joins.
func (b *builder) combined(items []*value, every time.Duration) []WeightedCheck {
	all := make([]WeightedCheck, len(items))
	for i, item := range items {
		all[i].Weight = get[int](item, "weight")
		if item.shape.field("weight") == nil {
			all[i].Weight = defaultWeight
		}
		b.readKind(item, &all[i].Check, every)
	}
	return all
}

func (b *builder) httpCheck(at *value) HTTPCheck {
	check := HTTPCheck{
		Method:     get[string](at, "method"),
		Path:       get[string](at, "path"),
		Host:       get[string](at, "host"),
		Body:       get[string](at, "body"),
		Status:     each[StatusRange](at.list("status")),
		Version:    get[int](at, "version"),
		BodyRegexp: get[string](at, "body_regexp"),
	}
	if check.Status == nil {
		check.Status = defaultStatus()
	}
	if at.shape.field("sni") != nil {
		check.SNI = cmp.Or(get[string](at, "sni"), hostOnly(check.Host))
		check.Insecure = get[bool](at, "insecure")
	}
	seen := make(map[string]bool)
	for name, header := range at.entry("headers").chosen {
		text, _ := header.data.(string)
		if low := strings.ToLower(name); seen[low] {
			b.refuseKey(header, refuse("%s is given twice: case does not matter in headers", name))
		} else {
			seen[low] = true
		}
		check.Headers = append(check.Headers, Header{Name: name, Value: text})
	}
	slices.SortFunc(check.Headers, func(x, y Header) int { return strings.Compare(x.Name, y.Name) })
	for path, value := range at.entry("json").chosen {
		text, _ := value.data.(string)
		check.JSON = append(check.JSON, JSONMatch{Path: path, Value: text})
	}
	slices.SortFunc(check.JSON, func(x, y JSONMatch) int { return strings.Compare(x.Path, y.Path) })
	for _, key := range []string{"body", "body_regexp", "json"} {
		if wants := at.entry(key); wants != nil && check.Method == "HEAD" {
			b.refuse(wants, refuse("a HEAD request has no body to search: use method GET"))
		}
	}
	return check
}

// hostOnly returns a Host header without its port, as TLS wants it; addresses
// are no server names (RFC 6066).
func hostOnly(host string) string {
	if _, err := netip.ParseAddr(host); err == nil {
		return ""
	}
	name, _, _ := strings.Cut(host, ":")
	return strings.TrimSuffix(name, ".")
}

func (b *builder) dnsCheck(at *value) DNSCheck {
	check := DNSCheck{
		Name: get[string](at, "name"), Type: get[string](at, "type"), TCP: get[bool](at, "tcp"),
		RCode: get[string](at, "rcode"), Expect: each[string](at.list("expect")),
	}
	for _, item := range at.list("expect") {
		data, ok := item.data.(string)
		if addr, err := netip.ParseAddr(data); ok && (check.Type == "A" || check.Type == "AAAA") && (err != nil || addr.Is4() != (check.Type == "A")) {
			b.refuse(item, refuse("%q is not the data of a record of type %s", clip(data), check.Type))
		}
	}
	if len(check.Expect) > 0 && at.given("rcode") && check.RCode != defaultRCode {
		b.refuse(at.entry("expect"), refuse("an answer of %s has no records to look for", check.RCode))
	}
	return check
}

func (b *builder) grpcCheck(at *value) GRPCCheck {
	check := GRPCCheck{
		Service: get[string](at, "service"), TLS: get[bool](at, "tls"), SNI: get[string](at, "sni"), Insecure: get[bool](at, "insecure"),
	}
	for _, key := range []string{"sni", "insecure"} {
		if at.given(key) && !check.TLS && at.sound("tls") && at.entry(key).data != false {
			b.refuseKey(at.entry(key), refuse("has no effect without tls: true"))
		}
	}
	return check
}

func (b *builder) execCheck(at *value) ExecCheck {
	check := ExecCheck{Command: each[string](at.list("command")), User: get[string](at, "user")}
	items := at.list("command")
	if len(items) == 0 {
		return check
	}
	program, ok := items[0].data.(string)
	switch {
	case !ok:
	case !filepath.IsAbs(program):
		b.refuse(items[0], refuse("%q is not an absolute path: there is no shell, and PATH is not searched", clip(program)))
	case strings.Contains(program, "{"):
		b.refuse(items[0], refuse("%q has a placeholder: only the arguments may", clip(program)))
	}
	return check
}
