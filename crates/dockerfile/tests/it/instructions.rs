//! Each instruction: what it says, and how it is refused.

use std::time::Duration;

use dockerfile::{File, Instruction, MountKind, Network, Sharing};

fn one(text: &str) -> Instruction {
    let file = File::parse("Dockerfile", format!("FROM scratch\n{text}").as_bytes()).unwrap();
    file.stages[0].steps[0].instruction.clone()
}

fn refused(text: &str) -> String {
    File::parse("Dockerfile", text.as_bytes()).map(drop).unwrap_err().to_string()
}

#[test]
fn mistakes_are_told_with_file_line_and_fix() {
    for (text, want) in [
        ("", "file with no instructions (begin with FROM"),
        ("# only\n# comments\n", "file with no instructions"),
        ("RUN x", "Dockerfile:1: no build stage in current context"),
        ("ARG a\n", "contains no stages"),
        ("FROM a\nFORM b", "Dockerfile:2: unknown instruction: FORM (did you mean FROM?)"),
        ("FROM a\nRUN x\n  y", "Dockerfile:3: unknown instruction: y"),
        ("FROM a b", "FROM requires either one or three arguments"),
        ("FROM a AS 1x", "invalid name for build stage: \"1x\""),
        ("FROM a\nENV", "ENV requires at least one argument"),
        ("FROM a\nENV A", "ENV must have two arguments (write ENV A=<value>)"),
        ("FROM a\nENV A=1 B", "can't find = in \"B\""),
        ("FROM a\nENV =1", "ENV names can not be blank"),
        ("FROM a\nLABEL", "LABEL requires at least one argument"),
        ("FROM a\nARG", "ARG requires at least one argument"),
        ("FROM a\nARG =1", "ARG names can not be blank"),
        ("FROM a\nCOPY x", "COPY requires at least two arguments"),
        ("FROM a\nADD x", "ADD requires at least two arguments"),
        ("FROM a\nCOPY --form=b x y", "unknown flag: --form (did you mean --from?)"),
        ("FROM a\nCOPY --checksum=b x y", "unknown flag: --checksum"),
        ("FROM a\nADD --from=b x y", "unknown flag: --from"),
        ("FROM a\nCOPY --from=a --from=b x y", "duplicate flag specified: --from"),
        ("FROM a\nCOPY --from x y", "missing a value on flag: --from"),
        ("FROM a\nCOPY --link=maybe x y", "expecting boolean value for flag --link"),
        ("FROM a\nCOPY --link= x y", "missing a value on flag: --link"),
        ("FROM a\nCOPY x <<EOF\nEOF", "COPY cannot accept a heredoc as a destination"),
        ("FROM a\nCOPY [\"x\", 1]", "arrays must be comprised of strings only"),
        ("FROM a\nRUN", "RUN requires at least one argument"),
        (
            "FROM a\nRUN <<EOF\nx",
            "Dockerfile:2: unterminated heredoc (end it with a line that is EOF",
        ),
        ("FROM a\nRUN --network=some x", "unsupported network mode"),
        ("FROM a\nRUN --security=no x", "security mode \"no\" is not valid"),
        ("FROM a\nRUN --mount=from=$x,target=/y z", "doesn't support variable expansion"),
        ("FROM a\nRUN --mount=type=\\\"bind z", "failed to parse csv"),
        ("FROM a\nRUN --device=x y", "--device=x is not supported"),
        ("FROM a\nSHELL sh -c", "SHELL requires the arguments to be in JSON form"),
        ("FROM a\nSHELL []", "SHELL requires at least one argument"),
        ("FROM a\nUSER", "USER requires exactly one argument"),
        ("FROM a\nWORKDIR", "WORKDIR requires exactly one argument"),
        ("FROM a\nSTOPSIGNAL", "STOPSIGNAL requires exactly one argument"),
        ("FROM a\nMAINTAINER --boo me", "unknown flag: --boo"),
        ("FROM a\nEXPOSE", "EXPOSE requires at least one argument"),
        ("FROM a\nVOLUME", "VOLUME requires at least one argument"),
        ("FROM a\nVOLUME [\" \"]", "VOLUME specified can not be an empty string"),
        ("FROM a\nONBUILD", "ONBUILD requires at least one argument"),
        ("FROM a\nONBUILD FROM b", "FROM isn't allowed as an ONBUILD trigger"),
        ("FROM a\nONBUILD ONBUILD RUN x", "Chaining ONBUILD"),
        ("FROM a\nHEALTHCHECK", "HEALTHCHECK requires at least one argument"),
        ("FROM a\nHEALTHCHECK NONE x", "HEALTHCHECK NONE takes no arguments"),
        ("FROM a\nHEALTHCHECK CMD", "Missing command after HEALTHCHECK CMD"),
        ("FROM a\nHEALTHCHECK RUN x", "Unknown type \"RUN\" in HEALTHCHECK (try CMD)"),
        ("FROM a\nHEALTHCHECK --interval=1ns CMD x", "cannot be less than 1ms"),
        ("FROM a\nHEALTHCHECK --interval=soon CMD x", "is no duration"),
        ("FROM a\nHEALTHCHECK --retries=-1 CMD x", "cannot be negative"),
        ("# escape=x\nFROM a", "Dockerfile:1: invalid escape token 'x'"),
        ("# escape=`\n# escape=`\nFROM a", "only one escape parser directive can be used"),
    ] {
        let error = refused(text);
        assert!(error.contains(want), "{text:?}: {error}");
    }
    let long = format!("FROM a\nLABEL x={}", "y".repeat(70_000));
    assert!(refused(&long).contains("line greater than max allowed size"));
    let deep = format!("FROM a\n{}RUN x", "ONBUILD ".repeat(8_000));
    assert!(refused(&deep).contains("Chaining ONBUILD"));
}

#[test]
fn files_are_transferred_as_flags_say() {
    let text =
        "COPY --from=b --chown=1:2 --chmod=u+x --link --parents --exclude=*.o --exclude=x a b /c/";
    let Instruction::Copy(copy) = one(text) else { panic!() };
    assert_eq!((copy.sources.join(" "), &*copy.destination), ("a b".to_owned(), "/c/"));
    assert_eq!((&*copy.from, &*copy.chown, &*copy.chmod), ("b", "1:2", "u+x"));
    assert!(copy.link && copy.parents);
    assert_eq!(copy.exclude, ["*.o", "x"]);
    let Instruction::Add(add) =
        one("ADD --checksum=sha256:x --keep-git-dir --unpack=false [\"a b\", \"c\"]")
    else {
        panic!()
    };
    assert_eq!((add.sources.join("|"), &*add.destination), ("a b".to_owned(), "c"));
    assert_eq!(
        (&*add.checksum, add.keep_git_dir, add.unpack),
        ("sha256:x", Some(true), Some(false))
    );
}

#[test]
fn heredocs_are_files_and_scripts() {
    let Instruction::Copy(copy) = one("COPY <<one <<-'two' three /x/\na $b\none\n\tc\n\ttwo\n")
    else {
        panic!()
    };
    assert_eq!(copy.sources, ["three"]);
    let files: Vec<_> = copy.inline.iter().map(|f| (&*f.name, &*f.content, f.expand)).collect();
    assert_eq!(files, [("one", "a $b\n", true), ("two", "c\n", false)]);
    let Instruction::Run(run) = one("RUN <<EOF cat\n#x\n\nEOF\n") else { panic!() };
    assert_eq!(run.command.words, ["<<EOF cat"]);
    assert_eq!(run.heredocs[0].content, "#x\n\n");
    let Instruction::Run(run) = one(r#"RUN ["<<EOF"]"#) else { panic!() };
    assert!(run.heredocs.is_empty() && !run.command.shell);
    let Instruction::Onbuild(text) = one("onbuild RUN <<EOF\nx\nEOF\n") else { panic!() };
    assert_eq!(text, "RUN <<EOF\nx\nEOF");
}

#[test]
fn commands_are_lists_or_the_shells() {
    let Instruction::Cmd(cmd) = one("CMD echo  $A") else { panic!() };
    assert_eq!((cmd.words.join("|"), cmd.shell), ("echo  $A".to_owned(), true));
    let Instruction::Entrypoint(entry) = one("ENTRYPOINT [\"a\", \"b c\"]") else { panic!() };
    assert_eq!((entry.words.join("|"), entry.shell), ("a|b c".to_owned(), false));
    // No JSON: single quotes.
    let Instruction::Cmd(cmd) = one("CMD ['a']") else { panic!() };
    assert_eq!((cmd.words.join("|"), cmd.shell), ("['a']".to_owned(), true));
    let Instruction::Run(run) = one("RUN --network=none --security=insecure a") else { panic!() };
    assert_eq!((run.network, run.insecure), (Network::None, true));
    let Instruction::Healthcheck(check) =
        one("HEALTHCHECK --interval=1m30s --timeout=500ms --retries=3 CMD curl x")
    else {
        panic!()
    };
    assert_eq!(check.test, ["CMD-SHELL", "curl x"]);
    assert_eq!((check.interval, check.retries), (Duration::from_secs(90), 3));
}

#[test]
fn lines_are_joined_around_comments_and_blanks() {
    let text = "# syntax=docker/dockerfile:1\n# escape=`\n\nFROM a\nRUN x `\n# note\n\n  y `\n`\n z\nENV A=b\\c\n";
    let file = File::parse("f", text.as_bytes()).unwrap();
    let steps = &file.stages[0].steps;
    let Instruction::Run(run) = &steps[0].instruction else { panic!() };
    assert_eq!(run.command.words, ["x   y  z"]);
    assert_eq!(steps[0].lines, (5, 10));
    assert_eq!(file.warnings.len(), 1);
    let Instruction::Env(env) = &steps[1].instruction else { panic!() };
    assert_eq!(env[0].1, "b\\c");
}

fn mount(text: &str) -> Result<dockerfile::Mount, String> {
    dockerfile::mount(text, &mut |v| Ok(v.replace("$v", "value"))).map_err(|e| e.to_string())
}

#[test]
fn mounts_of_every_kind() {
    let bind = mount("target=/x,from=b,source=s").unwrap();
    assert_eq!((bind.kind, bind.read_only, &*bind.from), (MountKind::Bind, true, "b"));
    let cache = mount("type=cache,dst=/c,id=$v,sharing=locked,mode=0700,uid=1,ro").unwrap();
    assert_eq!((cache.kind, &*cache.id, cache.read_only), (MountKind::Cache, "value", true));
    assert_eq!(
        (cache.sharing, cache.mode, cache.uid),
        (Some(Sharing::Locked), Some(0o700), Some(1))
    );
    let tmpfs = mount("type=tmpfs,target=/t,size=64m").unwrap();
    assert_eq!((tmpfs.size, tmpfs.read_only), (64 << 20, false));
    let secret = mount("type=secret,id=s,env=TOKEN,required").unwrap();
    assert_eq!((secret.required, secret.env.as_deref()), (true, Some("TOKEN")));
    assert_eq!(mount("type=ssh,\"target=/a,b\"").unwrap().target, "/a,b");
}

#[test]
fn mounts_that_mean_nothing_are_refused() {
    for (text, want) in [
        ("type=bnd,target=/x", "unsupported mount type \"bnd\" (did you mean bind?)"),
        ("target=/x,tagret=/y", "unexpected key 'tagret'"),
        ("target", "must be a key=value pair"),
        ("type=bind", "needs a target"),
        ("type=cache", "needs a target"),
        ("type=cache,target=/x,sharing=some", "unsupported sharing value"),
        ("target=/x,sharing=shared", "invalid cache sharing set for bind mount"),
        ("target=/x,mode=0700", "mode not allowed"),
        ("type=tmpfs,target=/x,uid=1", "uid not allowed"),
        ("type=cache,target=/x,gid=x", "invalid value x for gid"),
        ("type=tmpfs,target=/x,size=big", "invalid value for size"),
        ("target=/x,size=1", "unexpected key 'size'"),
        ("target=/x,required", "unexpected key 'required'"),
        ("target=/x,ro=perhaps", "invalid value for ro"),
        ("type=secret", "one of source, target required"),
        ("type=secret,id=a,src=b", "both source and id"),
        ("type=secret,id=a,from=b", "should not have a from"),
    ] {
        let error = mount(text).unwrap_err();
        assert!(error.contains(want), "{text}: {error}");
    }
}
