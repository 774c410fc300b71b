#include "bench/runner/text/builtin_text.hpp"

namespace nibkv::llm {
namespace {

constexpr std::string_view kText[] = {
    "Tell me a short story about someone who repairs clocks.",

    "The shop stood at the end of Harrow Lane, where the cobbles gave up and the meadow began. Every morning at ten to "
    "seven Miriam lifted the shutters, put the kettle on the stove, and walked once around the room to wind the clocks "
    "that nobody had come back for. There were thirty-one of them. Some were handsome, with walnut cases and painted "
    "moons; most were plain kitchen clocks with a crack across the glass.\n\n"
    "One wet Thursday a boy came in and put a bundle on the counter. \"It was my grandfather's,\" he said. \"It "
    "stopped "
    "on the day he did.\"\n\n"
    "Miriam unwrapped it. The spring was sound and the wheels were clean, but a hair, thin and silver, lay across the "
    "balance. She took it out with tweezers and held it to the lamp. \"Do you want to keep this?\" she asked.\n\n"
    "The boy thought about it for a long time, while the rain ran down the window and thirty-one clocks disagreed "
    "about "
    "the hour. \"No,\" he said at last. \"I want to hear it go.\" So she gave the wheel a push with the tip of her "
    "finger, and it went, and the two of them stood and listened as if it had something to say.",

    "Thanks! Now something practical: how do I cook rice so that it does not stick?",

    "Here is a method that works with most long-grain rice:\n\n"
    "1. Rinse one cup (about 190 g) in cold water until the water runs almost clear. That washes off loose starch.\n"
    "2. Put it in a heavy pot with one and a half cups of water and a pinch of salt.\n"
    "3. Bring it to the boil, stir once, cover it, and turn the heat down as low as it goes.\n"
    "4. Wait for 12 minutes. Do not lift the lid.\n"
    "5. Take the pot off the stove, leave it closed for another 10 minutes, then loosen the rice with a fork.\n\n"
    "If the bottom still sticks, the heat was too high; if the grains are hard in the middle, add two spoons of water "
    "and give them five minutes more.",

    "What is the difference between weather and climate? Please keep it simple.",

    "Weather is what happens in the air at one place over hours or days: rain this afternoon, frost tonight, a strong "
    "wind from the west. Climate is what weather does on average over a long time, usually thirty years or more. A "
    "single cold week says little about the climate, just as one short person says little about how tall people in a "
    "country are. Scientists therefore compare many years of measurements, taken in the same way at the same stations, "
    "before they say that a climate has changed.",

    "I have this function and it is slow. Can you help?\n\n"
    "def unique(items):\n    result = []\n    for item in items:\n        if item not in result:\n"
    "            result.append(item)\n    return result\n",

    "The test `item not in result` walks through the whole list each time, so the work grows with the square of the "
    "number of items. Keep a set beside the list; looking something up in a set takes about the same time however "
    "large "
    "it is:\n\n"
    "```python\ndef unique(items):\n    seen = set()\n    result = []\n    for item in items:\n"
    "        if item not in seen:\n            seen.add(item)\n            result.append(item)\n    return "
    "result\n```\n\n"
    "The order stays as it was. The items must be hashable: numbers, strings and tuples are, lists are not. In C++ the "
    "same idea reads `if (seen.insert(item).second) result.push_back(item);`.",

    "A train leaves at 14:35 and arrives at 17:20. The distance is 220 km. How fast is it on average?",

    "From 14:35 to 17:20 is 2 hours and 45 minutes, which is 2.75 hours. Speed is distance divided by time: 220 km / "
    "2.75 h = 80 km/h. So the train travels at 80 kilometres an hour on average, stops included.",

    "Write an email to my landlord. The heating has been broken since Monday.",

    "Subject: Heating out of order in flat 12B\n\n"
    "Dear Mr. Okafor,\n\n"
    "I am writing to let you know that the heating in our flat has not worked since Monday, 4 November. The radiators "
    "in "
    "both bedrooms stay cold, and the boiler shows the code E-07. I have checked that the valves are open and that the "
    "pressure is between 1 and 2 bar, as the manual says.\n\n"
    "Could you please send someone to look at it this week? I am at home every day after 4 p.m. and all of Saturday. "
    "My "
    "telephone number is 555-0142.\n\n"
    "Thank you very much, and kind regards,\nJana Lindqvist",

    "Who was right in this argument?\n\n"
    "\"You said you would be here at noon,\" said Tom.\n\"I said about noon,\" Ella answered. \"It is twenty past.\"\n"
    "\"Twenty past is not about noon. Twenty past is lunch.\"\n\"Then let us have lunch, and you can tell me about "
    "it.\"",

    "Both of them have a point. Ella did not promise an exact time, and twenty minutes is not a great delay. Tom, on "
    "the "
    "other hand, had waited, and a short message would have spared him that. What settles it is her last sentence: she "
    "does not insist on being right, she offers something better than an apology. I would say that Ella won the "
    "argument "
    "by giving it up.",

    "Name three facts about the Moon, and tell me why we always see the same side.",

    "- It is about 384,400 km away, which light crosses in 1.28 seconds.\n"
    "- Its diameter is 3,474 km, a little more than a quarter of the Earth's.\n"
    "- Its gravity is about one sixth of ours, so a person of 72 kg would feel like one of 12 kg.\n\n"
    "We see one side only because the Moon turns around its own axis in the same time in which it goes around the "
    "Earth: "
    "27.3 days. That is no accident. The Earth's pull raised bulges in the young Moon's rock, and the friction of "
    "moving "
    "them slowed its rotation until the bulges stayed in place.",

    "Could you summarise what makes a good teacher, in one paragraph?",

    "A good teacher knows the subject well enough to explain it in more than one way, and knows the pupils well enough "
    "to "
    "see which way each of them needs. She asks questions whose answers she does not already hear in the room, waits "
    "longer than is comfortable, and treats a mistake as news about how somebody thinks. She is fair, prepared, and "
    "honest when she does not know. Above all she makes herself a little less necessary every week, until her pupils "
    "can "
    "go on without her; and that, rather than any examination, is how one can tell that she has succeeded.",
};

}  // namespace

std::span<const std::string_view> builtin_text() {
  return kText;
}

}  // namespace nibkv::llm
