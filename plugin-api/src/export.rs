//! The macro that turns a crate into a plugin library.

/// Exports a plugin: `plugin! { name = "orders", build = Plugin::new(App::start).routes(routes!(accept)).task(fulfil) }`.
///
/// The name is a literal, `[a-z0-9_-]{1,64}`, and part of routes, subjects and logs. The version is the crate's own;
/// its first number is the plugin's major. Use it once, at the top level of a `cdylib` crate.
///
/// A plugin that is of no use in a host older than the SDK says so between the two: `needs_abi = "1.2"`. Without it, it
/// loads in every host of the same ABI major, and what an older host lacks answers with an error.
#[macro_export]
macro_rules! plugin {
    (name = $name:literal, $(needs_abi = $needs:literal,)? build = $build:expr $(,)?) => {
        const _: () = {
            const fn check(name: &str) {
                let bytes = name.as_bytes();
                assert!(!bytes.is_empty() && bytes.len() <= 64, "a plugin's name has 1 to 64 characters");
                let mut i = 0;
                while i < bytes.len() {
            let ok = matches!(bytes[i], b'a'..=b'z' | b'0'..=b'9' | b'_' | b'-');
                    assert!(ok, "a plugin's name is made of a-z, 0-9, _ and -");
                    i += 1;
                }
            }
            check($name);

            struct Library;
            impl $crate::Definition for Library {
                const NAME: &'static str = $name;
                const VERSION: &'static str = env!("CARGO_PKG_VERSION");
                fn build() -> Box<dyn $crate::ErasedPlugin> {
                    ($build).erase()
                }
            }
            $crate::abi::export_root!($crate::glue::vtable::<Library>);
        };
        $crate::abi::export_manifest!(
            $name,
            env!("CARGO_PKG_VERSION"),
            $crate::VERSION,
            $crate::RUSTC,
            $crate::TARGET,
            "unwind",
            match option_env!("CARDCAGE_GIT_REVISION") {
                Some(revision) => revision,
                None => "",
            }
            $(, needs_abi = $needs)?
        );
    };
}
