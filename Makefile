# make, make install, make uninstall: for packagers and for whoever installs from the sources. Works with GNU make and FreeBSD's make.
#
#	DESTDIR=	where a package is put together
#	PREFIX=		/usr/local
#	OS=		FreeBSD or Linux: whose layout (default: this system)
#	BUILT=		a directory with the programs (default: target/release, which `make` fills by cargo)
#	SKEP=		a skep that runs here; it prints manual pages and completions (default: BUILT/skep)
#
# Users of the services: `make users`, as root, on the system itself. Packages do it in their own way.

OS!=		uname -s
DESTDIR?=
PREFIX?=	/usr/local
BUILT?=		target/release
SKEP?=		$(BUILT)/skep
CARGO?=		cargo
CARGOFLAGS?=	--release --locked

BINDIR?=	$(PREFIX)/bin
LIBEXECDIR?=	$(PREFIX)/libexec/skep
MANDIR?=	$(PREFIX)/share/man
DOCDIR?=	$(PREFIX)/share/doc/skep
# The command looks for skep.conf in /etc/skep (FreeBSD: /usr/local/etc/skep), or where SKEP_CONF says.
SYSCONFDIR_Linux=	/etc
SYSCONFDIR_FreeBSD=	$(PREFIX)/etc
SYSCONFDIR?=	$(SYSCONFDIR_$(OS))
STATE_Linux=	/var/lib/skep
STATE_FreeBSD=	/var/db/skep
STATEDIR=	$(STATE_$(OS))
UNITDIR?=	$(PREFIX)/lib/systemd/system
SYSUSERSDIR?=	$(PREFIX)/lib/sysusers.d
TMPFILESDIR?=	$(PREFIX)/lib/tmpfiles.d

SERVICES=	broker api-frontend storage-helper net-helper vm-runner
PROGRAMS=	$(SERVICES) console-proxy guest-services image-fetcher iscsi-initiator disk-server
RC=		skep_broker skep_api_frontend skep_storage_helper skep_net_helper skep_vm_runner skep_guests
UNITS=		skep.target skep-prepare.service skep-guests.service skep-broker.service skep-api-frontend.service \
		skep-storage-helper.service skep-net-helper.service skep-vm-runner.service
TOP_DOCS=	README.md ARCHITECTURE.md CHANGELOG.md LICENSE

# The files name their places.
FILL=		sed -e 's|%%BINDIR%%|$(BINDIR)|g' -e 's|%%LIBEXECDIR%%|$(LIBEXECDIR)|g' -e 's|%%SYSCONFDIR%%|$(SYSCONFDIR)|g' \
		-e 's|%%DOCDIR%%|$(DOCDIR)|g' -e 's|%%STATE%%|$(STATEDIR)|g'

all:
	$(CARGO) build $(CARGOFLAGS) --bins -p skep -p skep-broker -p skep-api-frontend -p skep-storage-helper -p skep-net-helper \
		-p skep-vm-runner -p skep-console-proxy -p skep-guest-services -p skep-image-fetcher -p skep-iscsi-initiator -p skep-disk-server

install: install-common install-$(OS)

install-common:
	install -d -m 755 $(DESTDIR)$(BINDIR) $(DESTDIR)$(LIBEXECDIR) $(DESTDIR)$(DOCDIR)/docs $(DESTDIR)$(SYSCONFDIR)/skep
	install -d -m 755 $(DESTDIR)$(MANDIR)/man1 $(DESTDIR)$(PREFIX)/share/bash-completion/completions
	install -d -m 755 $(DESTDIR)$(PREFIX)/share/zsh/site-functions $(DESTDIR)$(PREFIX)/share/fish/vendor_completions.d
	install -m 755 $(BUILT)/skep $(DESTDIR)$(BINDIR)/skep
	install -d -m 755 $(DESTDIR)$(PREFIX)/share/skep/templates
	install -d -m 755 $(DESTDIR)$(PREFIX)/share/skep/templates/keys
	for k in packaging/templates/keys/*.key; do install -m 644 $$k $(DESTDIR)$(PREFIX)/share/skep/templates/keys/ || exit 1; done
	for t in packaging/templates/*.toml; do install -m 644 $$t $(DESTDIR)$(PREFIX)/share/skep/templates/ || exit 1; done
	for p in $(PROGRAMS); do install -m 755 $(BUILT)/skep-$$p $(DESTDIR)$(LIBEXECDIR)/skep-$$p || exit 1; done
	umask 022; $(SKEP) man $(DESTDIR)$(MANDIR)/man1
	umask 022; $(SKEP) completions bash >$(DESTDIR)$(PREFIX)/share/bash-completion/completions/skep
	umask 022; $(SKEP) completions zsh >$(DESTDIR)$(PREFIX)/share/zsh/site-functions/_skep
	umask 022; $(SKEP) completions fish >$(DESTDIR)$(PREFIX)/share/fish/vendor_completions.d/skep.fish
	install -m 644 $(TOP_DOCS) $(DESTDIR)$(DOCDIR)
	install -m 644 docs/*.md $(DESTDIR)$(DOCDIR)/docs

# Configuration goes to a .sample, as ports have it. Without DESTDIR, what is not there yet is made of it.
install-FreeBSD:
	install -d -m 755 $(DESTDIR)$(SYSCONFDIR)/rc.d $(DESTDIR)$(SYSCONFDIR)/jail.conf.d $(DESTDIR)$(SYSCONFDIR)/newsyslog.conf.d
	umask 022; $(FILL) packaging/skep.conf >$(DESTDIR)$(SYSCONFDIR)/skep/skep.conf.sample
	umask 022; $(FILL) jail.conf.d/skep.conf >$(DESTDIR)$(SYSCONFDIR)/jail.conf.d/skep.conf.sample
	umask 022; $(FILL) packaging/freebsd/newsyslog.conf >$(DESTDIR)$(SYSCONFDIR)/newsyslog.conf.d/skep.conf.sample
	umask 022; $(FILL) rc.d/rc.subr >$(DESTDIR)$(LIBEXECDIR)/rc.subr
	for s in $(RC); do \
		f=$(DESTDIR)$(SYSCONFDIR)/rc.d/$$s; rm -f $$f; $(FILL) rc.d/$$s >$$f && chmod 555 $$f || exit 1; \
	done
	for d in skep jail.conf.d newsyslog.conf.d; do \
		f=$(SYSCONFDIR)/$$d/skep.conf; \
		[ -n "$(DESTDIR)" ] || [ -e $$f ] || install -m 644 $$f.sample $$f || exit 1; \
	done

# Packages mark skep.conf as configuration; without DESTDIR, one that is there is kept.
install-Linux:
	install -d -m 755 $(DESTDIR)$(UNITDIR) $(DESTDIR)$(SYSUSERSDIR) $(DESTDIR)$(TMPFILESDIR)
	f=$(SYSCONFDIR)/skep/skep.conf; umask 022; \
		[ -z "$(DESTDIR)" ] && [ -e $$f ] || $(FILL) packaging/skep.conf >$(DESTDIR)$$f
	umask 022; for u in $(UNITS); do $(FILL) systemd/$$u >$(DESTDIR)$(UNITDIR)/$$u || exit 1; done
	umask 022; $(FILL) systemd/sysusers.conf >$(DESTDIR)$(SYSUSERSDIR)/skep.conf
	umask 022; $(FILL) systemd/tmpfiles.conf >$(DESTDIR)$(TMPFILESDIR)/skep.conf

users: users-$(OS)

users-FreeBSD:
	for s in $(SERVICES); do \
		pw usershow skep-$$s >/dev/null 2>&1 || pw useradd skep-$$s -c "skep $$s" -d /nonexistent -s /usr/sbin/nologin || exit 1; \
	done

users-Linux:
	systemd-sysusers $(SYSUSERSDIR)/skep.conf

# STATE stays, and so does configuration that was changed.
uninstall: uninstall-$(OS) uninstall-common

uninstall-common:
	rm -f $(DESTDIR)$(BINDIR)/skep
	for p in $(PROGRAMS); do rm -f $(DESTDIR)$(LIBEXECDIR)/skep-$$p; done
	rm -f $(DESTDIR)$(MANDIR)/man1/skep.1 $(DESTDIR)$(MANDIR)/man1/skep-*.1
	rm -f $(DESTDIR)$(PREFIX)/share/bash-completion/completions/skep $(DESTDIR)$(PREFIX)/share/zsh/site-functions/_skep
	rm -f $(DESTDIR)$(PREFIX)/share/fish/vendor_completions.d/skep.fish
	rm -rf $(DESTDIR)$(DOCDIR) $(DESTDIR)$(PREFIX)/share/skep
	-rmdir $(DESTDIR)$(LIBEXECDIR) $(DESTDIR)$(SYSCONFDIR)/skep

uninstall-FreeBSD:
	for d in skep jail.conf.d newsyslog.conf.d; do \
		f=$(DESTDIR)$(SYSCONFDIR)/$$d/skep.conf; ! cmp -s $$f $$f.sample || rm -f $$f; rm -f $$f.sample; \
	done
	for s in $(RC); do rm -f $(DESTDIR)$(SYSCONFDIR)/rc.d/$$s; done
	rm -f $(DESTDIR)$(LIBEXECDIR)/rc.subr

uninstall-Linux:
	f=$(DESTDIR)$(SYSCONFDIR)/skep/skep.conf; ! $(FILL) packaging/skep.conf | cmp -s - $$f || rm -f $$f
	for u in $(UNITS); do rm -f $(DESTDIR)$(UNITDIR)/$$u; done
	rm -f $(DESTDIR)$(SYSUSERSDIR)/skep.conf $(DESTDIR)$(TMPFILESDIR)/skep.conf

.PHONY: all install install-common install-FreeBSD install-Linux users users-FreeBSD users-Linux
.PHONY: uninstall uninstall-common uninstall-FreeBSD uninstall-Linux
